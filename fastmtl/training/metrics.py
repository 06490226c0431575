"""The figures that results are reported in, over the labels that are present."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastmtl.data.tasks import is_positive
from fastmtl.training.thresholds import HALF

BY_LABEL = ("positives", "average_precision", "f1", "accuracy")
# Comparisons (n, T, T) of one chunk of samples.
_COMPARISONS = 1 << 22


def decide(probabilities: Tensor, threshold: float | Tensor = HALF) -> Tensor:
    """The class decision of every probability: True above the threshold. Any shape, bool.

    A threshold (T,) is that of each label, of probabilities (..., T).

    Examples:
        >>> import torch
        >>> decide(torch.tensor([0.2, 0.5, 0.7]))
        tensor([False, False,  True])
    """
    return probabilities > threshold


def multilabel_metrics(
    probabilities: Tensor,  # (N, T)
    targets: Tensor,  # (N, T)
    label_names: Sequence[str] | None = None,
    *,
    threshold: float | Tensor = HALF,
) -> dict[str, Any]:
    """Micro-F1, Hamming loss, mean average precision, ranking figures, and figures by label.

    With decisions p > `threshold` over all present entries,

        micro_f1     = 2 TP / (2 TP + FP + FN), 0 where nothing is positive or predicted so
        hamming_loss = (FP + FN) / (entries)
        map          = mean of `average_precision` over the labels that have a positive

    `one_error`, `ranking_loss`, `coverage`, `lrap` of `ranking_metrics`, and by label

        positives         = its number of positives
        average_precision = sum_k (R_k - R_(k-1)) P_k, over the thresholds in falling order
        f1                = 2 TP / (2 TP + FP + FN), 0 where nothing is positive or predicted so
        accuracy          = the share of present entries decided rightly

    A figure with nothing to count (no present entry, no positive) is None, so that the result can
    be stored as JSON. Where positives are few, accuracy says little: who never decides for a label
    is nearly always right.

    Args:
        probabilities: (N, T), in [0, 1].
        targets: (N, T) from 0 to 1, positive from 1/2 on, or NaN where the label is missing: such
            entries count nowhere.
        label_names: T names, "0", "1", ... by default.
        threshold: of the decisions, one for all labels or (T,).

    Raises:
        ValueError: for shapes that do not match, and for probabilities and targets that are not in
            [0, 1]; targets may be NaN.

    Examples:
        >>> import torch
        >>> p = torch.tensor([[0.9, 0.2], [0.4, 0.8]])
        >>> y = torch.tensor([[1.0, 0.0], [1.0, float("nan")]])
        >>> multilabel_metrics(p, y, ["sea", "sand"])["accuracy"]
        {'sea': 0.5, 'sand': 1.0}
    """
    from torchmetrics.functional.classification import (
        binary_f1_score,
        binary_hamming_distance,
    )

    if probabilities.ndim != 2 or probabilities.shape != targets.shape:
        raise ValueError(
            "probabilities: expected the (N, T) shape of targets, "
            f"{tuple(targets.shape)}, got {tuple(probabilities.shape)}"
        )
    _check_entries("probabilities", probabilities, (probabilities >= 0) & (probabilities <= 1))
    num_tasks = targets.shape[1]
    names = [str(task) for task in range(num_tasks)] if label_names is None else list(label_names)
    if len(names) != num_tasks:
        raise ValueError(f"label_names: expected {num_tasks} names, got {len(names)}")

    present = ~targets.isnan()
    labels = is_positive(targets).long()
    decisions = decide(probabilities, threshold).long()
    by_label = [
        _of_label(probabilities[chosen, task], decisions[chosen, task], labels[chosen, task])
        for task, chosen in enumerate(present.unbind(1))
    ]
    precisions = [each["average_precision"] for each in by_label if each["positives"]]

    # Micro averaging pools the entries of all tasks, which also serves T = 1.
    d, y = decisions[present], labels[present]
    pooled = len(y) > 0
    return {
        "micro_f1": float(binary_f1_score(d, y, validate_args=False)) if pooled else None,
        "hamming_loss": (
            float(binary_hamming_distance(d, y, validate_args=False)) if pooled else None
        ),
        "map": sum(precisions) / len(precisions) if precisions else None,
        **ranking_metrics(probabilities, targets),
        **{
            figure: {name: each[figure] for name, each in zip(names, by_label, strict=True)}
            for figure in BY_LABEL
        },
    }


def _of_label(p: Tensor, decisions: Tensor, y: Tensor) -> dict[str, Any]:
    """The figures of one label, of its present entries (n,)."""
    from torchmetrics.functional.classification import (
        binary_accuracy,
        binary_average_precision,
        binary_f1_score,
    )

    positives = int(y.sum())
    if not len(y):
        return {**dict.fromkeys(BY_LABEL), "positives": 0}
    return {
        "positives": positives,
        "average_precision": (
            float(binary_average_precision(p, y, validate_args=False)) if positives else None
        ),
        "f1": float(binary_f1_score(decisions, y, validate_args=False)),
        "accuracy": float(binary_accuracy(decisions, y, validate_args=False)),
    }


def ranking_metrics(
    probabilities: Tensor,  # (N, T)
    targets: Tensor,  # (N, T)
) -> dict[str, float | None]:
    """How well each sample's labels are ranked, by the figures of the multi-label field.

    Means over the samples of which every label is present, some positive (P) and some not (Q). With
    g_ij = 1 where p_j >= p_i, so that equal probabilities count as the worse order,

        one_error    = share of samples whose most probable label (the first of equals) is in Q
        ranking_loss = sum over i in P, j in Q of g_ij / (|P| |Q|)
        coverage     = max over i in P of sum_j g_ij, less 1: steps down the list to cover P
        lrap         = mean over i in P of (sum over j in P of g_ij) / sum_j g_ij

    None where there is no such sample.

    Args:
        probabilities: (N, T).
        targets: (N, T) from 0 to 1, positive from 1/2 on, and NaN.

    Raises:
        ValueError: for probabilities that are NaN, which have no rank, and targets that are neither
            in [0, 1] nor NaN.

    Examples:
        >>> import torch
        >>> p = torch.tensor([[0.9, 0.8, 0.1], [0.2, 0.7, 0.3]])
        >>> y = torch.tensor([[1, 0, 1], [0, 1, 0]])
        >>> {name: round(value, 4) for name, value in ranking_metrics(p, y).items()}
        {'one_error': 0.0, 'ranking_loss': 0.25, 'coverage': 1.0, 'lrap': 0.9167}
    """
    _check_entries("probabilities", probabilities, ~probabilities.isnan())
    _check_entries("targets", targets, (targets >= 0) & (targets <= 1) | targets.isnan())
    whole = ~targets.isnan().any(1)
    positive = is_positive(targets)
    rows = whole & positive.any(1) & ~positive.all(1)
    p, own = probabilities[rows], positive[rows]
    if not len(p):
        return dict.fromkeys(("one_error", "ranking_loss", "coverage", "lrap"))
    top = p.argmax(1, keepdim=True)
    totals = torch.zeros(3, dtype=torch.float64)
    size = max(1, _COMPARISONS // p.shape[1] ** 2)
    for scores, labels in zip(p.split(size), own.split(size), strict=True):
        above = scores.unsqueeze(1) >= scores.unsqueeze(2)  # [n, i, j] is g_ij
        rank = above.sum(2).double()
        own_rank = (above & labels.unsqueeze(1)).sum(2).double()
        count = labels.sum(1).double()
        wrong = ((rank - own_rank) * labels).sum(1) / (count * (labels.shape[1] - count))
        totals[0] += wrong.sum()
        totals[1] += (rank * labels).amax(1).sum() - len(labels)
        totals[2] += ((own_rank / rank * labels).sum(1) / count).sum()
    ranking_loss, coverage, lrap = (totals / len(p)).tolist()
    return {
        "one_error": float((~own.gather(1, top)).double().mean()),
        "ranking_loss": ranking_loss,
        "coverage": coverage,
        "lrap": lrap,
    }


def _check_entries(name: str, values: Tensor, good: Tensor) -> None:
    """Raise ValueError naming the first entry of (N, T) that is not good."""
    if not bool(good.all()):
        expected = {"probabilities": "numbers in [0, 1]"}.get(
            name, "numbers in [0, 1] or NaN (missing)"
        )
        row, column = (~good).nonzero()[0].tolist()
        got = f"{values[row, column].item():g} at row {row}, column {column}"
        raise ValueError(f"{name}: expected {expected}, got {got}")
