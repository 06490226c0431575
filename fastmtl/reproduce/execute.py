"""One run of a reproduction, from data to its result.json."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import fastmtl.data
from fastmtl.data import DataError, MultiTaskData
from fastmtl.data.splits import partition
from fastmtl.data.tasks import Tasks
from fastmtl.reproduce.plan import RESULT, Plan, Run
from fastmtl.training import Reporter, RunError, Trainer, multilabel_metrics
from fastmtl.training import directory as run_directory
from fastmtl.training.checkpoint import (
    load_tensors,
    read_sealed,
    remove_temporaries,
    seal,
    write_json,
)
from fastmtl.training.reproducible import threads


def execute(plan: Plan, run: Run, out: Path, reporter: Reporter | None = None) -> dict[str, Any]:
    """Train a run, or go on with it where it was stopped, and store what the table needs of it.

    The result has `test`, the figures of `multilabel_metrics`; `seconds_per_epoch` (for an
    estimator without epochs: `seconds` of `fit` alone); `train_loss` and `weights` (epochs, T) of a
    network trained here. Raises what `Trainer.fit` raises, and DataError for data without a test
    split.
    """
    folder = out / run.name
    if plan.paper.system(run.system).estimator is None:
        result = _train(plan, run, folder, reporter)
    else:
        result = _fit(plan, run)
    folder.mkdir(parents=True, exist_ok=True)
    remove_temporaries(folder, [RESULT])
    write_json(folder / RESULT, seal(result))
    return result


def stored_result(plan: Plan, run: Run, out: Path) -> dict[str, Any] | None:
    """What `execute` stored of a run; None if it is not there, or damaged, or of another kind."""
    try:
        result = read_sealed(out / run.name / RESULT)
    except RunError:
        return None
    return result if _is_result(plan, run, result) else None


def _is_result(plan: Plan, run: Run, result: dict[str, Any]) -> bool:
    """Whether it has the numbers that a table needs of a run."""
    network = plan.paper.system(run.system).estimator is None
    try:
        curves = [result["train_loss"], result["weights"]] if network else []
        rows = [row for curve in curves for row in curve]
        test, accuracy = result["test"], result["test"]["accuracy"]
        numbers = [result["seconds_per_epoch" if network else "seconds"], result.get("epochs", 0)]
        figures = [*(test[name] for name in plan.paper.figures), *accuracy.values()]
        figures += [number for row in rows for number in row]
        numbers += [number for number in figures if number is not None]
        whole = all(len(row) == len(accuracy) for row in rows)
        return whole and all(not isinstance(n, str) and math.isfinite(n) for n in numbers)
    except (AttributeError, LookupError, OverflowError, TypeError):
        return False


def _train(plan: Plan, run: Run, folder: Path, reporter: Reporter | None) -> dict[str, Any]:
    config = plan.config(plan.paper.system(run.system), run.number)
    trainer = Trainer.from_config(config, folder, reporter=reporter)
    _need_binary(config.data, trainer.tasks)
    if not len(trainer.rows["test"]):
        raise DataError.at(config.data, "split", "samples in test", "none")
    begun = (folder / run_directory.CHECKPOINT).is_file()
    # A run that was stopped before its first checkpoint has nothing to keep.
    metrics = trainer.fit(resume=begun, overwrite=not begun)
    history = load_tensors(folder / run_directory.CHECKPOINT)[1]["history"]
    return {
        "test": metrics["test"],
        "epochs": metrics["training"]["epochs"],
        "seconds_per_epoch": metrics["training"]["seconds_per_epoch"],
        "train_loss": [record["train_loss"] for record in history],
        "weights": [record["weights"] for record in history],
    }


def _fit(plan: Plan, run: Run) -> dict[str, Any]:
    data = fastmtl.data.load(
        plan.data, test=plan.test, xml=plan.xml, modalities=plan.modalities, seed=_seed(plan, run)
    )
    _need_binary(plan.data, data.tasks)
    train, test = _rows(plan, run, data)
    if not len(test):
        raise DataError.at(plan.data, "split", "samples in test", "none")
    features = flat_features(data).numpy()
    estimator = plan.estimator(plan.paper.system(run.system), run.number)
    with threads(plan.threads):
        start = time.perf_counter()
        estimator.fit(features[train], data.y[train])
        seconds = time.perf_counter() - start
        probabilities = estimator.predict_proba(features[test])
        decided = estimator.predict(features[test]) == 1
    # A decision for a label at exactly 0.5 is one for the metrics too.
    at_least = np.nextafter(0.5, 1.0)
    probabilities = np.where(decided, np.maximum(probabilities, at_least), probabilities)
    result: dict[str, Any] = {
        "test": multilabel_metrics(torch.from_numpy(probabilities), data.y[test], data.label_names),
        "seconds": seconds,
    }
    if epochs := getattr(estimator, "epochs_", None):
        result |= {"epochs": epochs, "seconds_per_epoch": seconds / epochs}
    return result


def _need_binary(source: str, tasks: Tasks) -> None:
    """Raise DataError for multi-class tasks, which the papers' tables have no figures of."""
    for task in tasks.class_names:
        raise DataError.at(source, f"y_{task}", "binary tasks alone to reproduce", "classes")


def flat_features(data: MultiTaskData) -> Tensor:
    """All features of a sample in one row, (N, D): time steps and modalities one after the other.

    Examples:
        >>> data = fastmtl.data.load("synthetic:disaster?clips=40&frames=3&features=8")
        >>> flat_features(data).shape
        torch.Size([40, 24])
    """
    return torch.cat([x.flatten(1) for x in data.tensors().values()], 1)


def _rows(plan: Plan, run: Run, data: MultiTaskData) -> tuple[Tensor, Tensor]:
    """Rows to fit on and rows to test on."""
    if not plan.cross_validates:
        test = data.indices("test")
    else:
        groups = np.arange(len(data)) if data.group is None else data.group.numpy()
        fold = partition(groups, [1 / plan.folds] * (plan.folds - 1), seed=0)
        test = torch.from_numpy(np.flatnonzero(fold == run.number))
    # Estimators hold out what they validate on themselves.
    chosen = torch.ones(len(data), dtype=torch.bool)
    chosen[test] = False
    return chosen.nonzero().flatten(), test


def _seed(plan: Plan, run: Run) -> int:
    return 0 if plan.cross_validates else run.number


def with_threads(plan: Plan, count: int) -> Plan:
    """The plan with `count` CPU threads a run, unless it says how many."""
    return plan if plan.threads is not None else dataclasses.replace(plan, threads=count)
