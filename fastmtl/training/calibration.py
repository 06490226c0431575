"""Probabilities that can be taken at their word: temperatures, and how far off they are."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastmtl.data.tasks import is_positive

# Beyond these a temperature makes of every probability 1/2, or 0 and 1.
_COLDEST, _HOTTEST = 0.05, 20.0
_HALVINGS = 50
BINS = 10


def temperatures(
    logits: Tensor,  # (N, T)
    targets: Tensor,  # (N, T)
) -> Tensor:
    """The temperature of each label (T,) with the lowest cross-entropy of sigmoid(z / t).

    Guo et al. 2017, equation 9, for one binary task at a time. With s = 1 / t the cross-entropy is
    convex and its derivative, sum z (sigmoid(s z) - y), rises in s: its root is found by halving,
    within 1/20 to 20 in t. A label without a positive or without a negative has t = 1.

    Examples:
        >>> z, y = torch.tensor([[4.0], [4.0], [4.0], [-4.0]]), torch.tensor([[1.0], [1], [0], [0]])
        >>> temperatures(z, y).item() > 1  # three in four are right, said with 0.98
        True
    """
    z, y = logits.double(), targets.double()
    present = ~y.isnan()
    z, y = torch.where(present, z, 0.0), torch.where(present, y, 0.0)
    found = _halved(lambda s: (z * ((s * z).sigmoid() - y)).sum(0), z.shape[1])
    return torch.where(has_both(targets), found, 1.0)


def class_temperature(
    logits: Tensor,  # (N, C)
    targets: Tensor,  # (N,)
) -> float:
    """The temperature of a multi-class task with the lowest cross-entropy of softmax(z / t).

    As `temperatures`, by the derivative sum over samples of (sum_c p_c z_c - z_y), p the softmax of
    s z. A task with fewer than two of its classes has t = 1.

    Args:
        logits: (N, C).
        targets: (N,), from 0 to C - 1, NaN where missing.

    Examples:
        >>> z = torch.tensor([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [0.0, 4.0]])
        >>> class_temperature(z, torch.tensor([0.0, 1.0, 1.0, 1.0])) > 1
        True
    """
    present = ~targets.isnan()
    z, y = logits[present].double(), targets[present].long()
    if len(y.unique()) < 2:
        return 1.0
    chosen = z.gather(1, y[:, None]).sum()
    return float(_halved(lambda s: ((s * z).softmax(1) * z).sum() - chosen, 1))


def _halved(derivative: Callable[[Tensor], Tensor], count: int) -> Tensor:
    """The temperatures (count,) at whose inverse a rising derivative of each is 0."""
    # Of log s.
    low = torch.full((count,), _HOTTEST, dtype=torch.float64).log().neg()
    high = torch.full_like(low, _COLDEST).log().neg()
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        rising = derivative(middle.exp()) > 0
        low, high = torch.where(rising, low, middle), torch.where(rising, middle, high)
    return low.neg().exp()


def calibrate(
    probabilities: Tensor,  # (..., T)
    temperatures: Tensor,  # (T,)
) -> Tensor:
    """sigmoid(z / t) of probabilities sigmoid(z).

    Examples:
        >>> calibrate(torch.tensor([0.5, 0.9]), torch.tensor([2.0, 2.0]))
        tensor([0.5000, 0.7500])
    """
    return (probabilities.logit() / temperatures).sigmoid()


def calibration_figures(
    probabilities: Tensor,  # (N, T)
    targets: Tensor,  # (N, T)
) -> dict[str, float | None]:
    """How far probabilities can be taken at their word, over all present entries; the lower the
    better.

        brier             = mean (p - y)^2
        calibration_error = sum over ten bins of p of (n_bin / n) |mean p - mean y|

    Both are None where no label is present.

    Args:
        probabilities: in [0, 1].
        targets: of 0, 1 and NaN; those that are NaN do not count.

    Examples:
        >>> calibration_figures(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [1.0]]))
        {'brier': 0.0, 'calibration_error': 0.0}
    """
    present = ~targets.isnan()
    p, y = probabilities[present].double(), targets[present].double()
    if not len(p):
        return {"brier": None, "calibration_error": None}
    _, mean_p, mean_y = reliability(p, y)
    counts = _counts(p)
    error = (counts * (mean_p - mean_y).abs()).nansum() / len(p)
    return {"brier": float((p - y).square().mean()), "calibration_error": float(error)}


def reliability(
    probabilities: Tensor,  # (n,)
    targets: Tensor,  # (n,)
) -> tuple[Tensor, Tensor, Tensor]:
    """Counts, mean probability and share of positives of ten bins of probability; each (10,).

    The means of an empty bin are NaN.
    """
    counts = _counts(probabilities)
    index = _bins(probabilities)
    sums = [
        torch.zeros(BINS, dtype=torch.float64).index_add_(0, index, each.double())
        for each in (probabilities, targets)
    ]
    return counts, sums[0] / counts, sums[1] / counts


def _counts(probabilities: Tensor) -> Tensor:
    return torch.bincount(_bins(probabilities), minlength=BINS)


def _bins(probabilities: Tensor) -> Tensor:
    return (probabilities * BINS).long().clamp(max=BINS - 1)


def has_both(targets: Tensor) -> Tensor:
    """Which labels (T,) have a positive and a negative."""
    positive = is_positive(targets)
    return positive.any(0) & (~targets.isnan() & ~positive).any(0)
