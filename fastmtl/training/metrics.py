"""The figures that results are reported in, over the labels that are present."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

THRESHOLD = 0.5


def decide(probabilities: Tensor) -> Tensor:
    """The class decision of every probability: True above 0.5. Any shape, bool.

    Example:
        >>> import torch
        >>> decide(torch.tensor([0.2, 0.5, 0.7]))
        tensor([False, False,  True])
    """
    return probabilities > THRESHOLD


def multilabel_metrics(
    probabilities: Tensor,  # (N, T)
    targets: Tensor,  # (N, T)
    label_names: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Micro-F1, Hamming loss, mean average precision, and accuracy by label.

    `probabilities` (N, T) lie in [0, 1]; `targets` (N, T) are 0, 1, or NaN where the label is
    missing: such entries count nowhere. With decisions p > 0.5 over all present entries,

        micro_f1     = 2 TP / (2 TP + FP + FN), 0 where nothing is positive or predicted so
        hamming_loss = (FP + FN) / (entries)
        map          = mean over the tasks that have a positive of their average precision
                       sum_k (R_k - R_(k-1)) P_k, over the thresholds in falling order
        accuracy     = per task, the share of present entries decided rightly

    A figure with nothing to count (no present entry, no positive) is None, so that the result can
    be stored as JSON. Raises ValueError on shapes that do not match.

    Example:
        >>> import torch
        >>> p = torch.tensor([[0.9, 0.2], [0.4, 0.8]])
        >>> y = torch.tensor([[1.0, 0.0], [1.0, float("nan")]])
        >>> multilabel_metrics(p, y, ["sea", "sand"])["accuracy"]
        {'sea': 0.5, 'sand': 1.0}
    """
    from torchmetrics.functional.classification import (
        binary_accuracy,
        binary_average_precision,
        binary_f1_score,
        binary_hamming_distance,
    )

    if probabilities.ndim != 2 or probabilities.shape != targets.shape:
        raise ValueError(
            "probabilities: expected the (N, T) shape of targets, "
            f"{tuple(targets.shape)}, got {tuple(probabilities.shape)}"
        )
    num_tasks = targets.shape[1]
    names = [str(task) for task in range(num_tasks)] if label_names is None else list(label_names)
    if len(names) != num_tasks:
        raise ValueError(f"label_names: expected {num_tasks} names, got {len(names)}")

    present = ~targets.isnan()
    labels = targets.nan_to_num().long()
    accuracy: dict[str, float | None] = {}
    precisions = []
    for task, name in enumerate(names):
        chosen = present[:, task]
        p, y = probabilities[chosen, task], labels[chosen, task]
        accuracy[name] = float(binary_accuracy(p, y, validate_args=False)) if len(y) else None
        if y.any():
            precisions.append(float(binary_average_precision(p, y, validate_args=False)))

    # Micro averaging pools the entries of all tasks, which also serves T = 1.
    p, y = probabilities[present], labels[present]
    pooled = len(y) > 0
    return {
        "micro_f1": float(binary_f1_score(p, y, validate_args=False)) if pooled else None,
        "hamming_loss": (
            float(binary_hamming_distance(p, y, validate_args=False)) if pooled else None
        ),
        "map": sum(precisions) / len(precisions) if precisions else None,
        "accuracy": accuracy,
    }
