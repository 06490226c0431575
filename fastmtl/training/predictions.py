"""What a trained model says of samples, as text: CSV and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fastmtl._text import csv_text
from fastmtl.data.tasks import Tasks
from fastmtl.training.metrics import decide
from fastmtl.training.thresholds import HALF


def predictions_csv(
    rows: Tensor,  # (n,)
    probabilities: Tensor,  # (n, sum of tasks.sizes)
    tasks: Tasks,
    threshold: float | Tensor = HALF,
    names: Sequence[str] | None = None,  # (n,)
) -> str:
    """CSV of one line a sample: its index in the data, its name, T probabilities, T decisions.

    A multi-class task has a probability for each class, in the column `probability/TASK/CLASS`, and
    its decision is the name of the most probable one.

    Args:
        rows: indices of the samples in the data.
        probabilities: what `Predictor.probabilities` gave for them.
        tasks: what these are of.
        threshold: of the decisions for binary tasks, one or one each.
        names: of the samples; None leaves out their column.

    Examples:
        >>> import torch
        >>> tasks = Tasks(["sea", "sun"])
        >>> print(predictions_csv(torch.tensor([3]), torch.tensor([[0.25, 0.75]]), tasks))
        index,probability/sea,probability/sun,decision/sea,decision/sun
        3,0.25,0.75,0,1
        <BLANKLINE>
    """
    called = [] if names is None else ["name"]
    header = [f"probability/{name}" for name in tasks.columns()]
    header += [f"decision/{name}" for name in tasks.names]
    lines: list[list[object]] = [["index", *called, *header]]
    decisions = _decisions(tasks, probabilities, threshold)
    each = zip(rows.tolist(), probabilities.tolist(), decisions, strict=True)
    for i, (row, values, chosen) in enumerate(each):
        called = [] if names is None else [names[i]]
        lines.append([row, *called, *(f"{value:.6g}" for value in values), *chosen])
    return csv_text(lines)


def predictions_json(
    rows: Tensor,  # (n,)
    probabilities: Tensor,  # (n, sum of tasks.sizes)
    tasks: Tasks,
    threshold: float | Tensor = HALF,
    names: Sequence[str] | None = None,  # (n,)
) -> str:
    """The same as JSON: a list of an object a sample, with an object by label for each kind, in
    which the probabilities of a multi-class task are an object by class.

    Examples:
        >>> import torch
        >>> tasks = Tasks(["sea", "sun"])
        >>> print(predictions_json(torch.tensor([3]), torch.tensor([[0.25, 0.75]]), tasks))
        [
        {"index": 3, "probability": {"sea": 0.25, "sun": 0.75}, "decision": {"sea": 0, "sun": 1}}
        ]
        <BLANKLINE>
    """
    lines = []
    decisions = _decisions(tasks, probabilities, threshold)
    each = zip(rows.tolist(), probabilities.tolist(), decisions, strict=True)
    for i, (row, values, chosen) in enumerate(each):
        called = {} if names is None else {"name": names[i]}
        rounded = iter(float(f"{value:.6g}") for value in values)
        by_label: dict[str, Any] = {name: next(rounded) for name in tasks.binary}
        for task, classes in tasks.class_names.items():
            by_label[task] = {name: next(rounded) for name in classes}
        kinds = {"probability": by_label, "decision": dict(zip(tasks.names, chosen, strict=True))}
        lines.append(json.dumps({"index": row, **called, **kinds}, allow_nan=False))
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _decisions(
    tasks: Tasks, probabilities: Tensor, threshold: float | Tensor
) -> list[list[int | str]]:
    """What is decided for each sample and task: 0 or 1, or the name of a class."""
    binary, others = tasks.split(probabilities)
    decided: list[list[Any]] = [each.tolist() for each in decide(binary, threshold).int().unbind(1)]
    for task, of_classes in others.items():
        names = tasks.class_names[task]
        decided.append([names[number] for number in of_classes.argmax(1).tolist()])
    return [list(each) for each in zip(*decided, strict=True)]
