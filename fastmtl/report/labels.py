"""What a report tells of each label and multi-class task, measured."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from torch import Tensor

from fastmtl.data.tasks import Tasks, is_positive
from fastmtl.report.curves import Operating, operating
from fastmtl.training import Tuning
from fastmtl.training.metrics import decide

EXTREMES = 3


@dataclass(frozen=True)
class Concept:
    """A label on the samples where it is present, and what its two thresholds decide."""

    name: str
    rows: Tensor  # (n,) of the data
    probabilities: Tensor  # (n,)
    targets: Tensor  # (n,)
    average_precision: float | None
    run: Operating
    tuned: Operating
    temperature: float

    @property
    def positives(self) -> int:
        """How many samples have it."""
        return int(is_positive(self.targets).sum())

    def extremes(self) -> dict[str, list[int]]:
        """Places of the samples of which the model is most and least right, at most three each."""
        order = self.probabilities.argsort(descending=True, stable=True).tolist()
        has = is_positive(self.targets).tolist()
        positive = [place for place in order if has[place]]
        negative = [place for place in order if not has[place]]
        best, rest = positive[:EXTREMES], positive[EXTREMES:]
        return {"best": best, "missed": rest[::-1][:EXTREMES], "false": negative[:EXTREMES]}

    def extreme_rows(self, *kinds: str) -> list[int]:
        """Their rows in the data, of some kinds or of all."""
        extremes = self.extremes()
        return [int(self.rows[place]) for kind in kinds or extremes for place in extremes[kind]]

    def mistakes(self) -> list[int]:
        """Rows of the extremes that the run's threshold decides wrongly, the surest first."""
        extremes = self.extremes()
        pairs = zip_longest(extremes["false"], extremes["missed"])
        places = [place for pair in pairs for place in pair if place is not None]
        wrong = decide(self.probabilities, self.run.threshold) != is_positive(self.targets)
        return [int(self.rows[place]) for place in places if wrong[place]]


@dataclass(frozen=True)
class Confusion:
    """How often each class of a task was taken for each: counts (C, C), rows the true classes."""

    name: str
    classes: tuple[str, ...]
    counts: Tensor
    accuracy: float | None
    macro_f1: float | None


def measured_concepts(
    p: Tensor,  # (n, T)
    targets: Tensor,  # (n, T)
    rows: Tensor,  # (n,)
    figures: dict[str, Any],
    threshold: float,
    tuning: Tuning,
) -> list[Concept]:
    """The labels, each over the samples where it is present."""
    found = []
    for task, (name, precision) in enumerate(figures["average_precision"].items()):
        present = ~targets[:, task].isnan()
        own, y = p[present, task], targets[present, task]
        run = operating(own, y, threshold)
        tuned = operating(own, y, tuning.thresholds[task])
        temperature = tuning.temperatures[task]
        found.append(Concept(name, rows[present], own, y, precision, run, tuned, temperature))
    return found


def confusions(
    tasks: Tasks, probabilities: Tensor, targets: Tensor, figures: dict[str, Any]
) -> list[Confusion]:
    """The confusion of each multi-class task over the samples with a label."""
    found = []
    _, others = tasks.split(probabilities)
    columns = targets[:, tasks.num_binary :].unbind(1)
    for (name, p), column in zip(others.items(), columns, strict=True):
        classes, own = tuple(tasks.class_names[name]), figures[name]
        present = ~column.isnan()
        pairs = column[present].long() * len(classes) + p[present].argmax(1)
        counts = pairs.bincount(minlength=len(classes) ** 2).view(len(classes), -1)
        found.append(Confusion(name, classes, counts, own["accuracy"], own["macro_f1"]))
    return found
