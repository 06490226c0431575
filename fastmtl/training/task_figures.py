"""The figures of all tasks: those of the binary ones, and of each multi-class task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fastmtl.data.tasks import Tasks
from fastmtl.training.history import mean_present
from fastmtl.training.metrics import multilabel_metrics
from fastmtl.training.thresholds import HALF


def task_metrics(
    tasks: Tasks,
    probabilities: Tensor,  # (N, sum of tasks.sizes)
    targets: Tensor,  # (N, T)
    *,
    threshold: float | Tensor = HALF,
) -> dict[str, Any]:
    """`multilabel_metrics` of the binary tasks; with multi-class tasks also

        map      = the mean of the binary tasks' and of the others' `average_precision`
        macro_f1 = the mean of the macro-F1 of the multi-class tasks
        classes  = `class_metrics` of each of these

    Args:
        tasks: what the columns are of.
        probabilities: (N, sum of `tasks.sizes`), in [0, 1].
        targets: (N, T) of 0, 1, numbers of classes, or NaN where a label is missing.
        threshold: of the decisions for binary tasks, one or one
            each; of classes the most probable one is decided.

    Raises:
        ValueError: as `multilabel_metrics`.

    Examples:
        >>> import torch
        >>> tasks = Tasks(["sea", "damage"], {"damage": ["none", "some"]})
        >>> p = torch.tensor([[0.9, 0.2, 0.8], [0.4, 0.7, 0.3]])
        >>> figures = task_metrics(tasks, p, torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
        >>> figures["micro_f1"], figures["classes"]["damage"]["accuracy"]
        (1.0, 0.5)
    """
    binary, others = tasks.split(probabilities)
    first = tasks.num_binary
    figures = multilabel_metrics(binary, targets[:, :first], tasks.binary, threshold=threshold)
    if not tasks.class_names:
        return figures
    classes = {
        task: class_metrics(others[task], column, names)
        for (task, names), column in zip(
            tasks.class_names.items(), targets[:, first:].unbind(1), strict=True
        )
    }
    precisions = [
        figures["average_precision"][name] for name in tasks.binary if figures["positives"][name]
    ]
    precisions += [each["average_precision"] for each in classes.values()]
    figures["map"] = _mean(precisions)
    figures["macro_f1"] = _mean([each["macro_f1"] for each in classes.values()])
    figures["classes"] = classes
    return figures


def class_metrics(
    probabilities: Tensor,  # (N, C)
    targets: Tensor,  # (N,)
    class_names: Sequence[str],
) -> dict[str, Any]:
    """The figures of one task of C classes, of which the most probable is decided.

        samples           = those with a label; all others count nowhere
        accuracy          = share of the samples decided rightly
        macro_f1          = mean of the classes' f1
        average_precision = mean of the classes' average_precision

    and under `by_class`

        samples           = those of the class
        f1                = 2 TP / (2 TP + FP + FN), None where it neither occurs nor is decided
        average_precision = sum_k (R_k - R_(k-1)) P_k against all others, None where it is absent

    Means are over the classes that have the figure; one with nothing to count is None. Of equally
    probable classes the first is decided.

    Args:
        probabilities: (N, C).
        targets: (N,), from 0 to C - 1, NaN where missing.
        class_names: C names.

    Examples:
        >>> import torch
        >>> p = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.7, 0.2]])
        >>> figures = class_metrics(p, torch.tensor([0.0, 1.0, 2.0]), ["none", "mild", "severe"])
        >>> round(figures["accuracy"], 4), figures["by_class"]["f1"]["severe"]
        (0.6667, 0.0)
    """
    from torchmetrics.functional.classification import binary_average_precision

    if bool(((probabilities < 0) | (probabilities > 1) | probabilities.isnan()).any()):
        raise ValueError("probabilities: expected numbers in [0, 1], got others")
    present = ~targets.isnan()
    p, labels = probabilities[present], targets[present].long()
    count = len(class_names)
    decided = p.argmax(1) if len(p) else labels
    true = labels.bincount(minlength=count)
    hits = labels[decided == labels].bincount(minlength=count)
    both = true + decided.bincount(minlength=count)
    f1 = [
        2 * hit / total if total else None
        for hit, total in zip(hits.tolist(), both.tolist(), strict=True)
    ]
    precision = [
        float(binary_average_precision(p[:, c], (labels == c).long(), validate_args=False))
        if samples
        else None
        for c, samples in enumerate(true.tolist())
    ]
    by_class = {"samples": true.tolist(), "f1": f1, "average_precision": precision}
    return {
        "samples": len(labels),
        "accuracy": int(hits.sum()) / len(labels) if len(labels) else None,
        "macro_f1": _mean(f1),
        "average_precision": _mean(precision),
        "by_class": {
            figure: dict(zip(class_names, values, strict=True))
            for figure, values in by_class.items()
        },
    }


def _mean(values: Sequence[float | None]) -> float | None:
    return None if all(value is None for value in values) else mean_present(values)
