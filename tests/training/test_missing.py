"""Training on samples that lack some of their modalities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fastmtl
from fastmtl.data import DataError
from fastmtl.training import Batches, Predictor, Trainer, load_data

CPU = torch.device("cpu")


def write(folder: Path, text: list[int], video: list[int], *, filler: float = 0.0) -> str:
    """60 samples of which these lack text (NaN) and video (length 0, and whatever stands there)."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "x_text": rng.standard_normal((60, 4)).astype("f4"),
        "x_video": rng.standard_normal((60, 3, 6)).astype("f4"),
        "lengths_video": rng.integers(1, 4, 60),
        "y": rng.integers(0, 2, (60, 3)),
    }
    arrays["x_text"][text] = np.nan
    arrays["x_video"][video] = filler
    arrays["lengths_video"][video] = 0
    folder.mkdir(exist_ok=True)
    for name, value in arrays.items():
        np.save(folder / f"{name}.npy", value)
    return str(folder)


TEXT, VIDEO = list(range(0, 60, 5)), [i for i in range(3, 60, 4) if i % 5]


@pytest.mark.parametrize("memory", ["load", "stream"])
def test_batches_say_what_is_missing(
    tmp_path: Path, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastmtl.training.windows.WINDOW_BYTES", 1000)
    data = fastmtl.data.load(write(tmp_path / "set", TEXT, VIDEO), memory=memory)
    order = torch.randperm(60)
    rows = order.split(4)
    found = list(Batches(data, CPU)(order, 4))
    assert any(batch.present is None for batch in found)
    for own, batch in zip(rows, found, strict=True):
        for name, missing in (("text", TEXT), ("video", VIDEO)):
            there = [row not in missing for row in own.tolist()]
            present = (batch.present or {}).get(name)
            assert ([True] * 4 if present is None else present.tolist()) == there


@pytest.mark.parametrize("model", ["hgfn", "cfc", "matf", "gfn"])
def test_a_run_does_not_depend_on_what_stands_there_nor_where(
    tmp_path: Path, make_config: Any, model: str
) -> None:
    metrics, states = [], []
    for run, (memory, filler) in enumerate([("load", 0.0), ("load", np.inf), ("stream", np.nan)]):
        path = write(tmp_path / f"set{run}", TEXT, VIDEO, filler=filler)
        config = make_config(model, data=path, memory=memory, threads=1, epochs=2)
        trainer = Trainer.from_config(config, tmp_path / f"{run}")
        metrics.append(trainer.fit()["val"])
        states.append(trainer.model.state_dict())
    for other in (1, 2):
        assert metrics[other] == metrics[0]
        assert all(torch.equal(value, states[other][name]) for name, value in states[0].items())
    predictor = Predictor.load(tmp_path / "0", "cpu")
    found = [
        predictor.probabilities(load_data(config, str(tmp_path / "set2"), memory=memory))
        for memory in ("load", "stream")
    ]
    assert bool(found[0].isfinite().all())
    assert torch.equal(*found)


def test_a_batch_in_parts(tmp_path: Path, make_config: Any) -> None:
    path, found = write(tmp_path / "set", TEXT, VIDEO), []
    for accumulate in (1, 3):
        config = make_config(
            "hgfn", data=path, threads=1, epochs=2, dropout=0.0, accumulate=accumulate
        )
        trainer = Trainer.from_config(config, tmp_path / f"{accumulate}")
        trainer.fit()
        found.append(trainer.predict("val"))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("memory", ["load", "stream"])
def test_a_sample_without_any_modality(tmp_path: Path, make_config: Any, memory: str) -> None:
    path = write(tmp_path / "set", [5, 9], [9, 30])
    config = make_config("hgfn", data=path, memory=memory, threads=1, epochs=1)
    message = "x: expected at least one modality in every sample, got none in row 9$"
    with pytest.raises(DataError, match=message):
        Trainer.from_config(config, tmp_path / "run").fit()


def test_a_model_of_ones_own_is_told(tmp_path: Path, make_config: Any) -> None:
    class Sum(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.output = torch.nn.Linear(4, 3)
            self.told: set[str] = set()

        def forward(self, x: Any, lengths: Any = None, present: Any = None) -> torch.Tensor:
            self.told |= set(present or {})
            return self.output(x["text"].nan_to_num())

    data = fastmtl.data.load(write(tmp_path / "set", TEXT, VIDEO))
    model = Sum()
    config = make_config("hgfn", data="", threads=1, epochs=1)
    trainer = Trainer(model, fastmtl.balancing.Equal(3), data, config, tmp_path / "run")
    trainer.fit()
    assert model.told == {"text", "video"}
