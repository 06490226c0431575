"""Where the decision between positive and negative is drawn."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl.data.tasks import is_positive

# What a threshold can be chosen for; "half" is 0.5, whatever the figures.
THRESHOLDS = ("half", "micro_f1", "hamming_loss")
HALF = 0.5


def best_threshold(
    probabilities: Tensor,  # (N, T)
    targets: Tensor,  # (N, T)
    figure: str,
) -> float:
    """The threshold t, one for all tasks, whose decisions p > t are best by a figure.

    Over all present entries, with TP(t) and FP(t) of those with p > t and P positives,

        micro_f1:      max of 2 TP / (TP + FP + P)
        hamming_loss:  min of FP + P - TP

    t lies midway between two neighbouring probabilities, or below the least; of equally good ones
    it is the one nearest to 0.5.

    Args:
        probabilities: (N, T), in [0, 1].
        targets: (N, T) from 0 to 1, positive from 1/2 on; those that are NaN do not count.
        figure: one of `THRESHOLDS`; 0.5 for "half", and where no label is present.

    Examples:
        >>> p = torch.tensor([[0.1], [0.2], [0.4], [0.45]])
        >>> y = torch.tensor([[0.0], [0.0], [1.0], [1.0]])
        >>> round(best_threshold(p, y, "micro_f1"), 4)
        0.3
    """
    present = ~targets.isnan()
    if figure == "half" or not bool(present.any()):
        return HALF
    p, order = probabilities[present].double().sort(descending=True)
    y = is_positive(targets[present]).double()[order]
    taken = torch.arange(1, len(p) + 1, dtype=torch.float64)  # TP + FP of the first k
    hits, positives = y.cumsum(0), y.sum()
    value = 2 * hits / (taken + positives) if figure == "micro_f1" else 2 * hits - taken
    # A cut between equal probabilities is none.
    cuts = torch.cat([p[1:] < p[:-1], torch.ones(1, dtype=torch.bool)])
    below = torch.where(p[-1:] > 0, p[-1:] / 2, -1.0)
    thresholds = torch.cat([(p[1:] + p[:-1]) / 2, below])[cuts]
    value = value[cuts]
    if figure == "hamming_loss":
        # Nothing taken may be best of all.
        value = torch.cat([value, value.new_zeros(1)])
        thresholds = torch.cat([thresholds, (1 + p[:1]) / 2])
    best = thresholds[value == value.max()]
    return float(best[(best - HALF).abs().argmin()])
