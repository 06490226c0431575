"""Training runs: configuration, trainer, metrics, plots, and the trained model on new data."""

from __future__ import annotations

from fastmtl.training.batches import Batch, Batches
from fastmtl.training.checkpoint import RunError
from fastmtl.training.config import TrainConfig
from fastmtl.training.factory import build_balancer, build_model
from fastmtl.training.finite import DivergedError
from fastmtl.training.history import EpochRecord, read_history_csv
from fastmtl.training.inputs import arrange, load_data
from fastmtl.training.logs import StepRecord
from fastmtl.training.metrics import multilabel_metrics
from fastmtl.training.plots import plot_figures, plot_losses, plot_weights
from fastmtl.training.predictor import Predictor
from fastmtl.training.presets import preset
from fastmtl.training.ranks import EndedElsewhere, joined
from fastmtl.training.report import BarReporter, LineReporter, Reporter
from fastmtl.training.run_spread import plot_runs
from fastmtl.training.signals import Interrupted
from fastmtl.training.task_figures import class_metrics, task_metrics
from fastmtl.training.trainer import Trainer
from fastmtl.training.tuning import Tuning, tune

__all__ = [
    "BarReporter",
    "Batch",
    "Batches",
    "DivergedError",
    "EndedElsewhere",
    "EpochRecord",
    "Interrupted",
    "LineReporter",
    "Predictor",
    "Reporter",
    "RunError",
    "StepRecord",
    "TrainConfig",
    "Trainer",
    "Tuning",
    "arrange",
    "build_balancer",
    "build_model",
    "class_metrics",
    "joined",
    "load_data",
    "multilabel_metrics",
    "plot_figures",
    "plot_losses",
    "plot_runs",
    "plot_weights",
    "preset",
    "read_history_csv",
    "task_metrics",
    "tune",
]
