"""Precision over recall, and reliability: what a label's probabilities are worth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastmtl.data.tasks import is_positive
from fastmtl.report.chart import Chart, Line
from fastmtl.report.markup import Markup, number
from fastmtl.training.calibration import BINS, calibrate, reliability
from fastmtl.training.metrics import decide

# Points of a curve in the page, whatever the number of samples.
MAX_POINTS = 64
WIDTH, HEIGHT = 190, 176


@dataclass(frozen=True)
class Operating:
    """What a threshold gives: precision, recall and F1; None where nothing is counted."""

    threshold: float
    precision: float | None
    recall: float | None
    f1: float | None


def operating(probabilities: Tensor, targets: Tensor, threshold: float) -> Operating:
    """Precision, recall and F1 of the decisions p > threshold, over (n,) present entries.

    Examples:
        >>> p, y = torch.tensor([0.9, 0.6, 0.2]), torch.tensor([1.0, 0.0, 1.0])
        >>> operating(p, y, 0.5)
        Operating(threshold=0.5, precision=0.5, recall=0.5, f1=0.5)
    """
    chosen, positive = decide(probabilities, threshold), is_positive(targets)
    hits, taken, there = (int(each.sum()) for each in (chosen & positive, chosen, positive))
    return Operating(
        threshold,
        hits / taken if taken else None,
        hits / there if there else None,
        2 * hits / (taken + there) if taken + there else None,
    )


def precision_recall(
    probabilities: Tensor,  # (n,)
    targets: Tensor,  # (n,)
) -> list[tuple[float, float]]:
    """(recall, precision) at falling thresholds, in at most 64 points; none without a positive.

    Of more points those are kept that are evenly spread in recall.

    Examples:
        >>> p, y = torch.tensor([0.9, 0.6, 0.2]), torch.tensor([1.0, 0.0, 1.0])
        >>> precision_recall(p, y)[0]
        (0.5, 1.0)
    """
    positive = is_positive(targets)
    if not bool(positive.any()):
        return []
    p, order = probabilities.double().sort(descending=True)
    hits = positive[order].double().cumsum(0)
    taken = torch.arange(1, len(p) + 1, dtype=torch.float64)
    # A threshold between equal probabilities is none.
    cuts = torch.cat([p[1:] < p[:-1], torch.ones(1, dtype=torch.bool)])
    recall, precision = (hits / hits[-1])[cuts], (hits / taken)[cuts]
    if len(recall) > MAX_POINTS:
        grid = torch.linspace(float(recall[0]), 1, MAX_POINTS, dtype=torch.float64)
        kept = torch.searchsorted(recall, grid).clamp(max=len(recall) - 1).unique()
        recall, precision = recall[kept], precision[kept]
    return list(zip(recall.tolist(), precision.tolist(), strict=True))


def precision_recall_chart(
    points: list[tuple[float, float]], share: float, run: Operating, tuned: Operating
) -> Markup:
    """Precision over recall, with the share of positives, and where the two thresholds stand."""
    chart = _square("precision over recall", "recall", "precision")
    chart.line(Line([(0, share), (1, share)], "guide"))
    chart.line(Line(points, "main"))
    for each, style, name in ((run, "hollow", "the run's"), (tuned, "main", "tuned")):
        if each.precision is not None and each.recall is not None:
            said = f"{name} threshold {each.threshold:.3f}: F1 {number(each.f1)}"
            chart.dot(each.recall, each.precision, style, 4, said)
    return chart.render()


def reliability_chart(probabilities: Tensor, targets: Tensor, temperature: float) -> Markup:
    """The share of positives over the probability said, as it is and calibrated."""
    chart = _square("share of positives over probability", "probability", "positive")
    counts, _, _ = reliability(probabilities, targets)
    most = max(int(counts.max()), 1)
    for place, count in enumerate(counts.tolist()):
        if count:
            edges = (place / BINS + 0.01, (place + 1) / BINS - 0.01)
            chart.bar(edges, 0.25 * count / most, "bar")
    chart.line(Line([(0, 0), (1, 1)], "guide"))
    for values, style in (
        (calibrate(probabilities, torch.tensor(temperature)), "second"),
        (probabilities, "main"),
    ):
        inside, said, found = (each.tolist() for each in reliability(values, targets))
        bins = [each for each in zip(said, found, inside, strict=True) if each[2]]
        chart.line(Line([(x, y) for x, y, _ in bins], style))
        for x, y, count in bins:
            radius = 1.5 + 2.5 * (count / len(values)) ** 0.5
            chart.dot(x, y, style, radius, f"{count} samples: said {x:.2f}, found {y:.2f}")
    return chart.render()


def _square(label: str, x_title: str, y_title: str) -> Chart:
    titles = {"x_title": x_title, "y_title": y_title, "x_ticks": (0, 0.5, 1)}
    return Chart((0, 1), (0, 1), label, WIDTH, HEIGHT, **titles)  # type: ignore[arg-type]
