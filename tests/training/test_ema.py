from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fastmtl.training import Predictor, RunError, TrainConfig, Trainer, load_data
from fastmtl.training.checkpoint import load_tensors, save_tensors
from fastmtl.training.ema import Ema
from tests.training.test_logs import interrupted
from tests.training.test_trainer import assert_same_run

MakeConfig = Callable[..., TrainConfig]


def test_the_average_follows_the_equation() -> None:
    model = torch.nn.BatchNorm1d(1)
    ema = Ema(model, 0.6)
    expected = 1.0
    for step, value in enumerate([2.0, 5.0, -1.0, 3.0, 7.0, 8.0, 9.0], 1):
        with torch.no_grad():
            model.weight.fill_(value)
        model.num_batches_tracked.fill_(step)
        ema.update(step)
        decay = min(0.6, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert float(ema.tensors["weight"]) == pytest.approx(expected)
    assert int(ema.tensors["num_batches_tracked"]) == 7
    with ema.applied():
        assert model.weight.item() == pytest.approx(expected)
    assert model.weight.item() == 9


def test_averages_are_measured_and_kept(make_config: MakeConfig, tmp_path: Path) -> None:
    plain = Trainer.from_config(make_config(epochs=3), tmp_path / "plain")
    plain.fit()
    config = make_config(epochs=3, ema=0.9)
    run = Trainer.from_config(config, tmp_path / "ema")
    metrics = run.fit()
    tensors, values = load_tensors(tmp_path / "ema/checkpoint.safetensors")
    own, _ = load_tensors(tmp_path / "plain/checkpoint.safetensors")
    # The average has no part in the steps.
    for name in own:
        if name.startswith(("model.", "optimizer.")):
            assert torch.equal(tensors[name], own[name])
    best = values["history"][values["best_epoch"] - 1]
    assert best["map"] == metrics["val"]["map"]
    name = next(name for name in tensors if name.startswith("ema."))
    if values["best_epoch"] == 3:
        assert torch.equal(tensors[name], tensors[name.replace("ema.", "best.")])
    assert not torch.equal(tensors[name], tensors[name.replace("ema.", "model.")])
    data = load_data(config, config.data)
    assert Predictor.load(tmp_path / "ema", "cpu").evaluate(data, "test") == metrics["test"]


def test_a_resumed_average_is_the_uninterrupted_one(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(epochs=4, ema=0.9)
    Trainer.from_config(config, tmp_path / "whole").fit()
    interrupted(config, tmp_path / "part")
    assert_same_run(tmp_path / "whole", tmp_path / "part")


def test_a_checkpoint_without_an_average_is_refused(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(epochs=1, ema=0.9)
    Trainer.from_config(config, tmp_path).fit()
    path = tmp_path / "checkpoint.safetensors"
    tensors, values = load_tensors(path)
    del tensors[next(name for name in tensors if name.startswith("ema."))]
    save_tensors(path, tensors, values)
    with pytest.raises(RunError, match=r"ema: expected .*, got none"):
        Trainer.from_config(make_config(epochs=2, ema=0.9), tmp_path).fit(resume=True)
