"""What a run says while it goes on and when it ends."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console, Group
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from fastmtl.data.tasks import Tasks
from fastmtl.training.history import EpochRecord

FIGURES = {"micro_f1": "micro-F1", "hamming_loss": "Hamming loss", "map": "mAP"}
# Where they were asked for.
CALIBRATION = {"brier": "Brier score", "calibration_error": "calibration error"}
# Where there are tasks of classes.
OF_CLASSES = {"macro_f1": "macro-F1"}
BY_LABEL = {"positives": "positives", "average_precision": "AP", "f1": "F1", "accuracy": "accuracy"}
BY_TASK = {"accuracy": "accuracy", "macro_f1": "macro-F1", "average_precision": "AP"}
MAX_LABELS = 24
# Reading the loss waits for the device, so it is read a few times a second and not every step.
LOSS_SECONDS = 0.25


class Reporter:
    """Is told what happens in a run and says nothing; the base of those that speak."""

    def epoch_started(self, epoch: int, epochs: int, batches: int) -> None:
        """Epoch `epoch` of at most `epochs` begins, with this many mini-batches."""

    def step(self, loss: Callable[[], float]) -> None:
        """A mini-batch is done; `loss()` gives the epoch's mean loss so far, and costs a wait."""

    def epoch_ended(self, record: EpochRecord, best_epoch: int) -> None:
        """An epoch is done and measured; `best_epoch` is the best so far."""

    def message(self, text: str) -> None:
        """Something a user should know."""

    def close(self) -> None:
        """Nothing more comes."""


class LineReporter(Reporter):
    """One line an epoch, for logs.

    Examples:
        >>> reporter = LineReporter(Console(width=100))
        >>> reporter.epoch_started(1, 10, batches=5)
        >>> reporter.epoch_ended(EpochRecord(1, 0.5, [0.6], [0.5], [1.0], 0.7, 0.2, 0.8), 1)
        epoch 1/10  loss 0.6000  val loss 0.5000  micro-F1 0.700  mAP 0.800  0.50 s  best
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.epochs = 0

    def epoch_started(self, epoch: int, epochs: int, batches: int) -> None:
        self.epochs = epochs

    def epoch_ended(self, record: EpochRecord, best_epoch: int) -> None:
        parts = [
            f"epoch {record.epoch}/{self.epochs}",
            f"loss {record.total_train_loss:.4f}",
            f"val loss {record.total_val_loss:.4f}",
            f"micro-F1 {shown(record.micro_f1, 3)}",
            f"mAP {shown(record.map, 3)}",
            f"{record.seconds:.2f} s",
        ]
        if record.macro_f1 is not None:
            parts.insert(4, f"macro-F1 {shown(record.macro_f1, 3)}")
            if record.micro_f1 is None:
                del parts[3]
        if record.epoch == best_epoch:
            parts.append("best")
        self.message("  ".join(parts))

    def message(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


class BarReporter(LineReporter):
    """The same lines, and below them a progress bar of the epoch under way with its loss so far."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.bar = Progress(
            TextColumn("epoch {task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self.task: TaskID | None = None
        self.loss_read = 0.0

    def epoch_started(self, epoch: int, epochs: int, batches: int) -> None:
        super().epoch_started(epoch, epochs, batches)
        if self.task is not None:
            self.bar.remove_task(self.task)
        self.task = self.bar.add_task(f"{epoch}/{epochs}", total=batches, loss="")
        self.bar.start()

    def step(self, loss: Callable[[], float]) -> None:
        if self.task is None:
            return
        self.bar.advance(self.task)
        now = time.monotonic()
        if now - self.loss_read > LOSS_SECONDS:
            self.loss_read = now
            self.bar.update(self.task, loss=f"loss {loss():.4f}")

    def close(self) -> None:
        self.bar.stop()


def results_table(metrics: Mapping[str, Any], title: str) -> Group:
    """A table of figures (rows) by split (columns), and one of figures by label for the last split.

    Of more than 24 labels those with the lowest average precision are shown.

    Args:
        metrics: what metrics.json holds.
        title: the first table's.
    """
    splits = [name for name in metrics if name != "training"]
    table = Table(title=escape(title), title_justify="left")
    table.add_column("")
    for split in splits:
        table.add_column(split, justify="right")
    last = metrics[splits[-1]]
    of_classes = OF_CLASSES if "classes" in last else {}
    asked = {key: name for key, name in CALIBRATION.items() if key in last}
    for key, name in {**FIGURES, **of_classes, **asked}.items():
        if not of_classes or any(metrics[split][key] is not None for split in splits):
            table.add_row(name, *(shown(metrics[split][key]) for split in splits))
    tables = [table]
    if last["positives"]:
        tables.append(_labels_table(last, splits[-1]))
    if of_classes:
        tables.append(_classes_table(last["classes"], splits[-1]))
    return Group(*tables)


def _labels_table(figures: Mapping[str, Any], split: str) -> Table:
    precision: Mapping[str, float | None] = figures["average_precision"]
    names, title = list(precision), f"by label, {split}"
    if len(names) > MAX_LABELS:
        found = [name for name in names if precision[name] is not None]
        names = sorted(found, key=lambda name: precision[name] or 0.0)[:MAX_LABELS]
        title = f"by label, {split}: the lowest AP of {len(precision)}"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for column in BY_LABEL.values():
        table.add_column(column, justify="right")
    for name in names:
        positives, *shares = (figures[key][name] for key in BY_LABEL)
        table.add_row(escape(name), f"{positives:,}", *map(shown, shares))
    return table


def _classes_table(figures: Mapping[str, Any], split: str) -> Table:
    """A row a multi-class task."""
    table = Table(title=f"by multi-class task, {split}", title_justify="left")
    table.add_column("")
    for column in ("classes", "samples", *BY_TASK.values()):
        table.add_column(column, justify="right")
    for name, task in figures.items():
        counts = (str(len(task["by_class"]["samples"])), f"{task['samples']:,}")
        table.add_row(escape(name), *counts, *(shown(task[key]) for key in BY_TASK))
    return table


def told(tasks: Tasks) -> str:
    """How many labels and multi-class tasks there are.

    Examples:
        >>> told(Tasks(["sea", "damage"], {"damage": ["none", "some"]}))
        '1 label, 1 multi-class task'
    """
    labels, others = tasks.num_binary, len(tasks.class_names)
    parts = [f"{labels} label{'s' * (labels != 1)}"] * (labels > 0 or not others)
    parts += [f"{others} multi-class task{'s' * (others != 1)}"] * (others > 0)
    return ", ".join(parts)


def shown(value: float | None, digits: int = 4) -> str:
    """A figure as text; "-" where there is none.

    Examples:
        >>> shown(0.25), shown(None)
        ('0.2500', '-')
    """
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"
