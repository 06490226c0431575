from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastmtl.training import multilabel_metrics
from fastmtl.training.thresholds import best_threshold

NAN = float("nan")


def by_trying(p: Tensor, y: Tensor, figure: str) -> float:
    """The best value of a figure over all thresholds that decide differently."""
    values = [multilabel_metrics(p, y, threshold=float(t))[figure] for t in [-1, *p.flatten()]]
    return max(values) if figure == "micro_f1" else min(values)


@pytest.mark.parametrize("figure", ["micro_f1", "hamming_loss"])
@pytest.mark.parametrize("seed", range(5))
def test_no_other_threshold_is_better(seed: int, figure: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Rounded, so that some are equal.
    p = torch.rand(20, 3, generator=generator).mul(12).round().div(12)
    y = (torch.rand(20, 3, generator=generator) < 0.3).float()
    y[torch.rand(20, 3, generator=generator) < 0.1] = NAN
    threshold = best_threshold(p, y, figure)
    got = multilabel_metrics(p, y, threshold=threshold)[figure]
    assert got == pytest.approx(by_trying(p, y, figure))


def test_half_is_half() -> None:
    assert best_threshold(torch.rand(5, 2), torch.ones(5, 2), "half") == 0.5


def test_nothing_to_choose_by_leaves_half() -> None:
    assert best_threshold(torch.rand(5, 2), torch.full((5, 2), NAN), "micro_f1") == 0.5
    assert best_threshold(torch.empty(0, 2), torch.empty(0, 2), "micro_f1") == 0.5


def test_of_equally_good_ones_the_nearest_to_half() -> None:
    p, y = torch.tensor([[0.1], [0.9]]), torch.tensor([[0.0], [1.0]])
    assert best_threshold(p, y, "micro_f1") == pytest.approx(0.5)
    # Without a positive, every threshold has F1 0.
    assert best_threshold(p, torch.zeros(2, 1), "micro_f1") == pytest.approx(0.5)


def test_all_or_nothing_can_be_best() -> None:
    p = torch.tensor([[0.2], [0.3], [0.8]])
    assert best_threshold(p, torch.ones(3, 1), "hamming_loss") < 0.2
    assert best_threshold(p, torch.zeros(3, 1), "hamming_loss") > 0.8
