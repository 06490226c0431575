"""What a report tells of a run, measured once before any of it is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastmtl.data import DataError, MultiTaskData
from fastmtl.data.tasks import Tasks
from fastmtl.models.base import MultiTaskModel
from fastmtl.nn.fusion_levels import fusion_levels
from fastmtl.report.curves import Operating, operating
from fastmtl.training import EpochRecord, Predictor, Tuning, directory, inspection
from fastmtl.training.calibration import calibration_figures
from fastmtl.training.history import read_history_csv
from fastmtl.training.inputs import split_rows, with_classes_of
from fastmtl.training.metrics import decide
from fastmtl.training.task_figures import task_metrics
from fastmtl.training.thresholds import HALF

SAMPLES = 6
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
        return int((self.targets == 1).sum())

    def extremes(self) -> dict[str, list[int]]:
        """Places of the samples of which the model is most and least right, at most three each."""
        order = self.probabilities.argsort(descending=True, stable=True).tolist()
        positive = [place for place in order if self.targets[place] == 1]
        negative = [place for place in order if self.targets[place] == 0]
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
        wrong = decide(self.probabilities, self.run.threshold) != (self.targets == 1)
        return [int(self.rows[place]) for place in places if wrong[place]]


@dataclass(frozen=True)
class Confusion:
    """How often each class of a task was taken for each: counts (C, C), rows the true classes."""

    name: str
    classes: tuple[str, ...]
    counts: Tensor
    accuracy: float | None
    macro_f1: float | None


class Decided(NamedTuple):
    """The class that a sample is taken for, with its probability, and the true one if known."""

    name: str
    probability: float
    true: str | None


@dataclass(frozen=True)
class Sample:
    """A sample that the report looks into, and what the model looked at in it."""

    row: int
    name: str
    probabilities: Tensor  # of the binary tasks
    targets: Tensor  # likewise
    classes: dict[str, Decided]  # by task of classes
    attention: dict[str, Tensor]  # (L,), or (T, L) where each task has its own
    weights: tuple[dict[str, float], ...]  # of the fusion graph, level by level


@dataclass(frozen=True)
class Graph:
    """A fusion graph: its edges, and mean and standard deviation of its weights over samples."""

    modalities: tuple[str, ...]
    edges: tuple[tuple[tuple[int, int], ...], ...]  # of levels 2, 3, ...
    names: tuple[tuple[str, ...], ...]  # likewise
    means: tuple[dict[str, float], ...]  # of levels 1, 2, ...
    deviations: tuple[dict[str, float], ...]


@dataclass(frozen=True)
class Findings:
    """All that the page shows."""

    title: str
    data: str
    split: str
    tasks: Tasks
    measured: int
    threshold: float
    fitted_here: bool  # whether thresholds and temperatures are of this data, not of the run
    figures: dict[str, dict[str, Any]]  # by split
    tuned: dict[str, Any]
    calibration: dict[str, dict[str, float | None]]  # before and after
    concepts: list[Concept]
    groups: list[Confusion]
    samples: list[Sample]
    graph: Graph | None
    history: list[EpochRecord]
    training: dict[str, Any]
    settings: dict[str, Any]
    record: dict[str, Any]


def find(
    run: Path,
    predictor: Predictor,
    data: MultiTaskData,
    split: str,
    *,
    samples: int = SAMPLES,
    rows: Sequence[int] = (),
) -> Findings:
    """Measure a run on a split of data.

    Args:
        run: the directory.
        predictor: its model.
        data: in the model's layout, with labels.
        split: "train", "val", "test" or "all".
        samples: how many to look into: half of them the surest hits of each label in turn, the
            others the surest mistakes.
        rows: those to look into, instead.

    Raises:
        DataError: if the data does not fit the run, or the split is empty.
    """
    predictor.check(data)
    data = with_classes_of(data, predictor.description)
    tasks = predictor.tasks
    chosen = split_rows(data, split)
    if not len(chosen):
        raise DataError.at(data.name, "split", f"samples in {split}", "none")
    tuning = predictor.tuning or predictor.tune(data)
    calibrated = predictor.tuned(tuning, thresholds=False, calibrated=True)
    p, sure = (each.probabilities(data, split) for each in (predictor, calibrated))
    targets, binary = data.y[chosen], tasks.num_binary
    threshold = predictor.threshold if isinstance(predictor.threshold, float) else HALF
    figures = {}
    if split == "test" and len(data.indices("val")):
        figures["val"] = predictor.evaluate(data, "val")
    figures[split] = task_metrics(tasks, p, targets, threshold=threshold)
    by_label = torch.tensor(tuning.thresholds, dtype=torch.float64)
    concepts = _concepts(p, targets, chosen, figures[split], threshold, tuning)
    inspected = list(rows) or _to_inspect(concepts, samples)
    metrics = directory.stored_metrics(run) or {}
    stored = directory.read(run)
    return Findings(
        title=predictor.title,
        data=data.name,
        split=split,
        tasks=tasks,
        measured=len(chosen),
        threshold=threshold,
        fitted_here=predictor.tuning is None,
        figures=figures,
        tuned=task_metrics(tasks, p, targets, threshold=by_label),
        calibration={
            "as trained": calibration_figures(p[:, :binary], targets[:, :binary]),
            "calibrated": calibration_figures(sure[:, :binary], targets[:, :binary]),
        },
        concepts=concepts,
        groups=_groups(tasks, p, targets, figures[split].get("classes", {})),
        samples=_samples(predictor, data, inspected),
        graph=_graph(predictor, data, chosen),
        history=_history(run, len(tasks.names)),
        training=metrics.get("training", {}),
        settings=predictor.config.to_dict(),
        record=stored.record,
    )


def sample_name(data: MultiTaskData, row: int) -> str:
    """What a sample is called: its name in the data, or its row."""
    return f"sample {row}" if data.sample_names is None else data.sample_names[row]


def _concepts(
    p: Tensor,  # (n, T)
    targets: Tensor,  # (n, T)
    rows: Tensor,  # (n,)
    figures: dict[str, Any],
    threshold: float,
    tuning: Tuning,
) -> list[Concept]:
    found = []
    for task, (name, precision) in enumerate(figures["average_precision"].items()):
        present = ~targets[:, task].isnan()
        own, y = p[present, task], targets[present, task]
        run = operating(own, y, threshold)
        tuned = operating(own, y, tuning.thresholds[task])
        temperature = tuning.temperatures[task]
        found.append(Concept(name, rows[present], own, y, precision, run, tuned, temperature))
    return found


def _to_inspect(concepts: list[Concept], count: int) -> list[int]:
    """Half of them the surest hits, of each label in turn, the other half the surest mistakes."""
    best = [concept.extreme_rows("best") for concept in concepts]
    worst = [concept.mistakes() for concept in concepts]
    hits, errors = _in_turn(best), _in_turn(worst)
    half = max(count - len(errors), -(-count // 2))
    found = list(dict.fromkeys(hits[:half]))
    found += [row for row in errors if row not in found]
    return found[:count]


def _in_turn(queues: list[list[int]]) -> list[int]:
    """The first of every queue, then the second of every queue, and so on, each once."""
    most = max(map(len, queues), default=0)
    turns = (queue[turn] for turn in range(most) for queue in queues if len(queue) > turn)
    return list(dict.fromkeys(turns))


def _samples(predictor: Predictor, data: MultiTaskData, rows: Sequence[int]) -> list[Sample]:
    if not rows:
        return []
    for row in rows:
        if not 0 <= row < len(data):
            raise DataError.at(data.name, "rows", f"rows from 0 to {len(data) - 1}", str(row))
    chosen, tasks = data.subset(list(rows)), predictor.tasks
    p = predictor.probabilities(chosen)
    model = predictor.model
    attention = predictor.attention(chosen) if _shows(model, "attention") else {}
    levels = predictor.fusion_weights(chosen) if _shows(model, "fusion_weights") else ()
    lengths = {name: chosen.lengths_of(name) for name in attention}
    found = []
    for place, row in enumerate(rows):
        own = {}
        for name, each in attention.items():
            steps = lengths[name]
            own[name] = each[place][..., : None if steps is None else int(steps[place])]
        weights = tuple({k: float(v[place]) for k, v in level.items()} for level in levels)
        binary, others = tasks.split(p[place : place + 1])
        y = chosen.y[place]
        decided = {
            task: _decided(of_classes[0], tasks.class_names[task], float(number))
            for (task, of_classes), number in zip(
                others.items(), y[tasks.num_binary :], strict=True
            )
        }
        labels = y[: tasks.num_binary]
        name = sample_name(data, row)
        found.append(Sample(row, name, binary[0], labels, decided, own, weights))
    return found


def _decided(probabilities: Tensor, names: Sequence[str], true: float) -> Decided:
    best = int(probabilities.argmax())
    known = None if math.isnan(true) else names[int(true)]
    return Decided(names[best], float(probabilities[best]), known)


def _groups(
    tasks: Tasks, probabilities: Tensor, targets: Tensor, figures: dict[str, Any]
) -> list[Confusion]:
    """The confusion of each task of classes over the samples with a label."""
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


def _graph(predictor: Predictor, data: MultiTaskData, rows: Tensor) -> Graph | None:
    if not _shows(predictor.model, "fusion_weights"):
        return None
    levels = predictor.fusion_weights(data, rows)
    modalities = tuple(levels[0])
    structure = fusion_levels(len(modalities), len(levels))
    return Graph(
        modalities,
        tuple(level.edges for level in structure),
        tuple(tuple(level) for level in levels[1:]),
        tuple({name: float(each.mean()) for name, each in level.items()} for level in levels),
        tuple(
            {name: float(each.std(correction=0)) for name, each in level.items()}
            for level in levels
        ),
    )


def _shows(model: Any, name: str) -> bool:
    return isinstance(model, MultiTaskModel) and inspection.shows(model, name)


def _history(run: Path, num_tasks: int) -> list[EpochRecord]:
    path = run / directory.HISTORY
    if not path.is_file():
        return []
    return read_history_csv(path.read_text(encoding="utf-8"), num_tasks)
