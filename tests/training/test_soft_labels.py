"""Labels between 0 and 1, from a file to the figures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fastmtl
from fastmtl.data import DataError, MultiTaskData
from fastmtl.models import MLKNN
from fastmtl.nn import FocalLoss
from fastmtl.training import Trainer, multilabel_metrics
from fastmtl.training.metrics import ranking_metrics
from fastmtl.training.recipes import LOSSES
from fastmtl.training.thresholds import best_threshold


def soft(shape: tuple[int, ...] = (60, 3)) -> np.ndarray[Any, Any]:
    y = np.random.default_rng(0).random(shape).astype("f4").round(2)
    y[0, 0], y[1, 1], y[2] = np.nan, 0.5, (0, 1, 0.49)
    return y


def hard(y: Any) -> torch.Tensor:
    y = torch.as_tensor(y)
    return (y >= 0.5).float().masked_fill(y.isnan(), torch.nan)


def written(folder: Path) -> str:
    np.savez(folder / "a.npz", x=np.random.default_rng(1).standard_normal((60, 3, 4)), y=soft())
    return str(folder / "a.npz")


def test_a_file_of_them(tmp_path: Path) -> None:
    data = fastmtl.data.load(written(tmp_path))
    np.testing.assert_array_equal(data.y, soft())
    assert data.soft
    assert "174 labels lie between 0 and 1" in data.warnings[0]
    assert torch.equal(data.positives(), (hard(soft())[data.indices("train")] == 1).sum(0))
    whole = MultiTaskData.from_arrays(data.x, hard(soft()))
    assert not whole.soft
    assert not whole.warnings
    (tmp_path / "b.csv").write_text("a,y_t\n1,0.25\n2,1\n3,\n4,0\n")
    table = fastmtl.data.load(tmp_path / "b.csv", for_training=False)
    assert table.y.flatten().tolist()[:2] == [0.25, 1.0]


@pytest.mark.parametrize("value", [-0.01, 1.01, np.inf])
def test_what_lies_beyond(value: float) -> None:
    y = soft()
    y[7, 2] = value
    with pytest.raises(
        DataError, match=r"y: expected only numbers from 0 to 1 or NaN .* row 7, co"
    ):
        MultiTaskData.from_arrays(torch.ones(60, 2), y)


def test_focal_loss_mixes_that_of_a_positive_and_that_of_a_negative(make_config: Any) -> None:
    y, logits = torch.from_numpy(soft()), torch.randn(60, 3)
    data = MultiTaskData.from_arrays(torch.ones(60, 1, 2), y)
    loss = LOSSES["focal"].build(make_config(gamma=1.5), data)
    single = FocalLoss(gamma=1.5, reduction="none")
    ones, zeros = single(logits, torch.ones_like(y)), single(logits, torch.zeros_like(y))
    expected = (y * ones + (1 - y) * zeros).nanmean(0)
    torch.testing.assert_close(loss(logits, y), expected)
    whole = MultiTaskData.from_arrays(torch.ones(60, 1, 2), hard(y))
    assert type(LOSSES["focal"].build(make_config(), whole)) is FocalLoss


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains_on_them(tmp_path: Path, make_config: Any, loss: str) -> None:
    config = make_config(data=written(tmp_path), loss=loss, threads=1, epochs=2, balancer="dmtl")
    trainer = Trainer.from_config(config, tmp_path / "run")
    figures = trainer.fit()["val"]
    chances, rows = trainer.predict("val"), trainer.rows["val"]
    expected = multilabel_metrics(
        chances, hard(soft())[rows], trainer.label_names, threshold=trainer.progress.threshold
    )
    assert figures == expected
    assert all(
        loss is not None and np.isfinite(loss) for loss in trainer.progress.history[0].train_loss
    )


def test_figures_are_those_of_a_half() -> None:
    p, y = torch.rand(60, 3), torch.from_numpy(soft())
    assert multilabel_metrics(p, y) == multilabel_metrics(p, hard(y))
    assert ranking_metrics(p, y) == ranking_metrics(p, hard(y))
    for figure in ("micro_f1", "hamming_loss"):
        assert best_threshold(p, y, figure) == best_threshold(p, hard(y), figure)


def test_who_counts_refuses_them() -> None:
    message = re.escape("expected labels of 0 and 1, got others or missing ones")
    with pytest.raises(ValueError, match=message):
        MLKNN().fit(np.eye(20), np.full((20, 2), 0.5))
