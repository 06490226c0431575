"""What happened in every epoch of a run."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fastmtl._text import csv_text

# What early stopping can watch on the validation split.
MONITORS = ("loss", "map", "micro_f1", "macro_f1")
# Columns of the validation figures; the last one where there are multi-class tasks.
_FIGURES = ["micro_f1", "hamming_loss", "map", "macro_f1"]


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: losses and weights by task, validation figures, and the training pass's seconds.

    `train_loss` is the mean over the epoch's steps, while the weights were changing; `val_loss` the
    mean over the validation split after the epoch. Both are the unweighted task losses, None for a
    task without a label there. `weights` are the task weights of the epoch's last step, `threshold`
    that of the decisions, `macro_f1` that of multi-class tasks.

    Examples:
        >>> record = EpochRecord(1, 0.5, [0.6, 0.2], [0.5, None], [1.0, 1.0], 0.7, 0.2, 0.8)
        >>> record.total_train_loss, record.total_val_loss
        (0.4, 0.5)
        >>> EpochRecord.from_dict(record.to_dict()) == record
        True
    """

    epoch: int
    seconds: float
    train_loss: list[float | None]  # (T,)
    val_loss: list[float | None]  # (T,)
    weights: list[float]  # (T,)
    micro_f1: float | None
    hamming_loss: float | None
    map: float | None
    threshold: float = 0.5
    macro_f1: float | None = None

    @property
    def total_train_loss(self) -> float:
        """Mean of the unweighted training losses of the tasks."""
        return mean_present(self.train_loss)

    @property
    def total_val_loss(self) -> float:
        """Mean of the unweighted validation losses of the tasks."""
        return mean_present(self.val_loss)

    def score(self, monitor: str) -> float:
        """How good the epoch is by one of `MONITORS`, the higher the better.

        A figure that no epoch can have, as mAP where validation has no positive, leaves the loss.
        """
        figure = None if monitor == "loss" else getattr(self, monitor)
        return -self.total_val_loss if figure is None else float(figure)

    def to_dict(self) -> dict[str, Any]:
        """The record as a dictionary that json can write."""
        values = dataclasses.asdict(self)
        if self.macro_f1 is None:
            del values["macro_f1"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EpochRecord:
        """The record that `to_dict` gave."""
        return cls(**values)


def history_csv(records: Sequence[EpochRecord], label_names: Sequence[str]) -> str:
    """The records as CSV, one row an epoch; a missing value is an empty field.

    Examples:
        >>> record = EpochRecord(1, 0.5, [0.6], [0.5], [1.0], 0.7, 0.2, 0.8)
        >>> print(history_csv([record], ["sea"]), end="")
        epoch,seconds,train_loss,val_loss,val_micro_f1,val_hamming_loss,val_map,train_loss/sea,val_loss/sea,weight/sea
        1,0.5,0.6,0.5,0.7,0.2,0.8,0.6,0.5,1.0
    """
    header = ["epoch", "seconds", "train_loss", "val_loss"]
    some = any(record.macro_f1 is not None for record in records)
    figures = _FIGURES if some else _FIGURES[:-1]
    header += [f"val_{figure}" for figure in figures]
    for kind in ("train_loss", "val_loss", "weight"):
        header += [f"{kind}/{name}" for name in label_names]
    rows: list[list[Any]] = [header]
    for record in records:
        row = [record.epoch, record.seconds, record.total_train_loss, record.total_val_loss]
        row += [getattr(record, figure) for figure in figures]
        rows.append([*row, *record.train_loss, *record.val_loss, *record.weights])
    return csv_text(rows)


def read_history_csv(text: str, num_tasks: int) -> list[EpochRecord]:
    """The records that `history_csv` wrote, but for their thresholds, which it leaves out.

    Raises ValueError for any other text.

    Examples:
        >>> record = EpochRecord(1, 0.5, [0.6], [None], [1.0], 0.7, 0.2, 0.8)
        >>> read_history_csv(history_csv([record], ["sea"]), 1) == [record]
        True
    """
    header, *rows = list(csv.reader(io.StringIO(text))) or [[]]
    figures = [name.removeprefix("val_") for name in header[4 : -3 * num_tasks]]
    first = 4 + len(figures)
    if figures[:3] != _FIGURES[:3] or figures[3:] not in ([], _FIGURES[3:]):
        raise ValueError(f"history: expected the columns of {num_tasks} tasks, got others")
    records = []
    for row in rows:
        values = [float(field) if field else None for field in row]
        losses, val_losses, weights = (
            values[first + kind * num_tasks : first + (kind + 1) * num_tasks] for kind in range(3)
        )
        of_epoch: dict[str, Any] = dict(zip(figures, values[4:first], strict=True))
        kept = [float(weight or 0.0) for weight in weights]
        record = EpochRecord(int(row[0]), float(row[1]), losses, val_losses, kept, **of_epoch)
        records.append(record)
    return records


def mean_present(values: Iterable[float | None]) -> float:
    """The mean of the values that are not None, NaN if there is none.

    Examples:
        >>> mean_present([1.0, None, 3.0])
        2.0
    """
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else math.nan


def or_none(values: Tensor, present: Tensor) -> list[float | None]:
    """The values (T,) of the tasks that are `present` (T,), None for the others.

    Examples:
        >>> import torch
        >>> or_none(torch.tensor([0.5, 0.0]), torch.tensor([True, False]))
        [0.5, None]
    """
    pairs = zip(values.tolist(), present.tolist(), strict=True)
    return [value if there else None for value, there in pairs]
