"""The samples that a report looks into, and what the model looked at in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from fastmtl.data import DataError, MultiTaskData
from fastmtl.models.base import MultiTaskModel
from fastmtl.nn.fusion_levels import fusion_levels
from fastmtl.report.labels import Concept
from fastmtl.training import Predictor, inspection


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
    classes: dict[str, Decided]  # by multi-class task
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


def sample_name(data: MultiTaskData, row: int) -> str:
    """What a sample is called: its name in the data, or its row."""
    return f"sample {row}" if data.sample_names is None else data.sample_names[row]


def to_inspect(concepts: list[Concept], count: int) -> list[int]:
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


def inspect_samples(predictor: Predictor, data: MultiTaskData, rows: Sequence[int]) -> list[Sample]:
    """These rows of the data, with what the model says and looked at."""
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


def inspect_graph(predictor: Predictor, data: MultiTaskData, rows: Tensor) -> Graph | None:
    """The fusion graph over these rows, None for a model without one."""
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
