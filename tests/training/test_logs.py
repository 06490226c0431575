from __future__ import annotations

import csv
import os
import signal
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from fastmtl.training import EpochRecord, Interrupted, StepRecord, TrainConfig, Trainer

MakeConfig = Callable[..., TrainConfig]
STEPS = 2  # of an epoch: 36 samples, 20 at a time
needs_tensorboard = pytest.mark.skipif(
    find_spec("tensorboard") is None, reason="tensorboard is not installed"
)


def rows(path: Path, name: str = "log.csv") -> list[dict[str, str]]:
    with open(path / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def stopping(epoch: int) -> Callable[[StepRecord], None]:
    """Asks for a stop in an epoch."""

    def stop(record: StepRecord) -> None:
        if record.epoch == epoch:
            os.kill(os.getpid(), signal.SIGINT)

    return stop


def interrupted(config: TrainConfig, path: Path) -> None:
    """A run that stops in its third epoch, and goes on to its end."""
    with pytest.raises(Interrupted):
        Trainer.from_config(config, path, on_step=stopping(3)).fit()
    Trainer.from_config(config, path).fit(resume=True)


def test_callbacks_hear_of_every_step_and_epoch(make_config: MakeConfig, tmp_path: Path) -> None:
    steps: list[tuple[int, int, float]] = []
    epochs: list[EpochRecord] = []

    def on_step(record: StepRecord) -> None:
        assert record.losses.shape == record.weights.shape == (7,)
        assert not record.losses.requires_grad
        steps.append((record.epoch, record.step, record.lr))

    config = make_config(epochs=2, warmup=4)
    run = Trainer.from_config(config, tmp_path, on_step=on_step, on_epoch=epochs.append)
    run.fit()
    lr = config.lr
    assert steps == [(1, 1, lr / 4), (1, 2, lr / 2), (2, 3, lr * 3 / 4), (2, 4, lr)]
    assert epochs == run.progress.history


def test_an_epoch_is_stored_before_a_callback_can_fail(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    def fail(record: EpochRecord) -> None:
        raise KeyError(record.epoch)

    with pytest.raises(KeyError):
        Trainer.from_config(make_config(), tmp_path, on_epoch=fail).fit()
    run = Trainer.from_config(make_config(), tmp_path, on_epoch=fail)
    with pytest.raises(KeyError):
        run.fit(resume=True)
    assert run.progress.epoch == 2


def test_a_csv_has_every_step_once(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(balancer="tdb", epochs=4, log="csv")
    run = Trainer.from_config(config, tmp_path / "whole")
    run.fit()
    whole = rows(tmp_path / "whole")
    assert [row["step"] for row in whole] == [str(step + 1) for step in range(4 * STEPS)]
    assert whole[-1]["epoch"] == "4"
    weights = [float(whole[-1][f"weight/{name}"]) for name in run.label_names]
    assert weights == run.progress.history[-1].weights
    losses = [float(whole[-1][f"loss/{name}"]) for name in run.label_names]
    assert float(whole[-1]["loss"]) == pytest.approx(sum(losses) / 7)
    interrupted(config, tmp_path / "part")
    assert rows(tmp_path / "part") == whole


def test_rows_after_the_checkpoint_are_dropped(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(epochs=2, log="csv")
    Trainer.from_config(config, tmp_path).fit()
    before = (tmp_path / "log.csv").read_text()
    with open(tmp_path / "log.csv", "a", encoding="utf-8") as file:
        file.write(before.splitlines()[-1].replace("2,", "3,", 1) + "\n3,5,0.0")
    Trainer.from_config(make_config(epochs=3, log="csv"), tmp_path).fit(resume=True)
    assert [row["epoch"] for row in rows(tmp_path)] == ["1"] * 2 + ["2"] * 2 + ["3"] * 2
    Trainer.from_config(make_config(epochs=1), tmp_path).fit(overwrite=True)
    assert not (tmp_path / "log.csv").exists()


@needs_tensorboard
def test_tensorboard_has_every_step_once(make_config: MakeConfig, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    interrupted(make_config(balancer="tdb", epochs=4, log="tensorboard"), tmp_path)
    events: Any = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [each.step for each in events.Scalars("step/loss")] == list(range(1, 4 * STEPS + 1))
    assert [each.step for each in events.Scalars("val/map")] == [STEPS * n for n in range(1, 5)]
    history = rows(tmp_path, "history.csv")
    for tag, column in (("val/map", "val_map"), ("weight/victim", "weight/victim")):
        ends = [each.value for each in events.Scalars(tag) if each.step % STEPS == 0]
        assert ends == pytest.approx([float(row[column]) for row in history], rel=1e-6)
    Trainer.from_config(make_config(epochs=1), tmp_path).fit(overwrite=True)
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.skipif(find_spec("tensorboard") is not None, reason="tensorboard is installed")
def test_an_absent_tensorboard_is_told(make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="log: expected tensorboard to be installed"):
        Trainer.from_config(make_config(log="tensorboard"), tmp_path)
