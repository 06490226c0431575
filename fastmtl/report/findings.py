"""What a report tells of a run, measured once before any of it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastmtl.data import DataError, MultiTaskData
from fastmtl.data.tasks import Tasks
from fastmtl.report.inspected import Graph, Sample, inspect_graph, inspect_samples, to_inspect
from fastmtl.report.labels import Concept, Confusion, confusions, measured_concepts
from fastmtl.training import EpochRecord, Predictor, directory
from fastmtl.training.calibration import calibration_figures
from fastmtl.training.history import read_history_csv
from fastmtl.training.inputs import split_rows, with_classes_of
from fastmtl.training.task_figures import task_metrics
from fastmtl.training.thresholds import HALF

SAMPLES = 6


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
    concepts = measured_concepts(p, targets, chosen, figures[split], threshold, tuning)
    inspected = list(rows) or to_inspect(concepts, samples)
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
        groups=confusions(tasks, p, targets, figures[split].get("classes", {})),
        samples=inspect_samples(predictor, data, inspected),
        graph=inspect_graph(predictor, data, chosen),
        history=_history(run, len(tasks.names)),
        training=metrics.get("training", {}),
        settings=predictor.config.to_dict(),
        record=stored.record,
    )


def _history(run: Path, num_tasks: int) -> list[EpochRecord]:
    path = run / directory.HISTORY
    if not path.is_file():
        return []
    return read_history_csv(path.read_text(encoding="utf-8"), num_tasks)
