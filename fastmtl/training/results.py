"""What a run that has ended leaves to be read and looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastmtl.training import directory
from fastmtl.training.checkpoint import write_atomic, write_json
from fastmtl.training.evaluation import Evaluation
from fastmtl.training.history import history_csv
from fastmtl.training.plots import plot_figures, plot_losses, plot_weights
from fastmtl.training.signals import StopRequest
from fastmtl.training.state import Progress


def measure_run(evaluation: Evaluation, progress: Progress, stop: StopRequest) -> dict[str, Any]:
    """What metrics.json holds of a run whose model has its best weights.

    Raises Interrupted if `stop` was requested.
    """
    history, threshold = progress.history, progress.threshold
    metrics: dict[str, Any] = {
        split: evaluation.figures(split, threshold, stop)
        for split in ("val", "test")
        if len(evaluation.rows[split])
    }
    metrics["training"] = {
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "stopped_early": progress.epoch < evaluation.config.epochs,
        "threshold": threshold,
        "seconds_per_epoch": sum(record.seconds for record in history) / len(history),
        **evaluation.tune(threshold, stop).to_dict(evaluation.tasks),
    }
    return metrics


def write_results(
    path: Path,
    metrics: Mapping[str, Any],
    progress: Progress,
    label_names: Sequence[str],
    title: str,
) -> None:
    """Write history and plots to a run's directory, and metrics.json last: it says that all is."""
    history, names, best = progress.history, label_names, progress.best_epoch
    write_atomic(path / directory.HISTORY, history_csv(history, names))
    write_atomic(path / directory.LOSSES, plot_losses(history, names, best, title))
    write_atomic(path / directory.FIGURES, plot_figures(history, best, title))
    write_atomic(path / directory.WEIGHTS, plot_weights(history, names, title))
    write_json(path / directory.METRICS, metrics)
