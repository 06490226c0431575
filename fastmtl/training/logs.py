"""Every step of a run in a file: learning rate, losses and weights of the tasks."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastmtl._text import csv_text
from fastmtl.training import directory
from fastmtl.training.checkpoint import write_atomic
from fastmtl.training.history import EpochRecord, mean_present


class StepRecord(NamedTuple):
    """One step: its number in the run (from 1), and what it did.

    Losses and weights are on the device, and may be of the past when they are read: copy what is
    to be kept. Of several processes the losses are those of the first one's samples.
    """

    epoch: int
    step: int
    lr: float
    losses: Tensor  # (T,), unweighted
    weights: Tensor  # (T,), of the tasks, after the step


class Log:
    """Is told of every step and epoch, and writes none of it; the base of those that do."""

    def step(self, record: StepRecord) -> None:
        """A step is done."""

    def epoch(self, record: EpochRecord) -> None:
        """An epoch is done, and the steps that were told since the last one belong to it."""

    def close(self) -> None:
        """Nothing more comes."""


class _Steps(Log):
    """Keeps the steps of an epoch on the device, so that none waits for it."""

    def __init__(self, label_names: Sequence[str]) -> None:
        self.label_names = label_names
        self._steps: list[tuple[int, float]] = []
        self._values: list[Tensor] = []

    def step(self, record: StepRecord) -> None:
        self._steps.append((record.step, record.lr))
        self._values.append(torch.cat([record.losses, record.weights.to(record.losses.dtype)]))

    def take(self) -> list[tuple[int, float, list[float], list[float]]]:
        """Number, learning rate, losses and weights of every step since the last call."""
        tasks = len(self.label_names)
        values = torch.stack(self._values).tolist() if self._values else []
        taken = [
            (*step, each[:tasks], each[tasks:])
            for step, each in zip(self._steps, values, strict=True)
        ]
        self._steps, self._values = [], []
        return taken


class CsvLog(_Steps):
    """log.csv in the directory of a run: a row a step, written after every epoch.

    Args:
        path: the directory.
        label_names: of the T tasks.
        epochs: those completed; rows of later ones, which are trained anew, are dropped.
    """

    def __init__(self, path: Path, label_names: Sequence[str], epochs: int) -> None:
        super().__init__(label_names)
        self._path = path / directory.LOG
        header = ["epoch", "step", "lr", "loss"]
        header += [f"{kind}/{name}" for kind in ("loss", "weight") for name in label_names]
        kept = [header]
        if self._path.is_file():
            with open(self._path, encoding="utf-8", newline="") as file:
                rows = list(csv.reader(file))[1:]
            kept += [row for row in rows if len(row) == len(header) and int(row[0]) <= epochs]
        write_atomic(self._path, csv_text(kept))

    def epoch(self, record: EpochRecord) -> None:
        rows = [
            [record.epoch, step, lr, mean_present(losses), *losses, *weights]
            for step, lr, losses, weights in self.take()
        ]
        with open(self._path, "a", encoding="utf-8", newline="") as file:
            file.write(csv_text(rows))


class TensorBoardLog(_Steps):
    """Event files in tensorboard/ in the directory of a run, as `CsvLog` has it, with the figures
    of every epoch beside the steps.

    Args:
        path: the directory.
        label_names: of the T tasks.
        steps: those completed; events of later ones are dropped.
    """

    def __init__(self, path: Path, label_names: Sequence[str], steps: int) -> None:
        super().__init__(label_names)
        from torch.utils.tensorboard import SummaryWriter

        made: Any = SummaryWriter
        self._writer = made(str(path / directory.TENSORBOARD), purge_step=steps + 1)

    def epoch(self, record: EpochRecord) -> None:
        last = 0
        for last, lr, losses, weights in self.take():
            self._add("step", last, {"lr": lr, "loss": mean_present(losses)})
            self._add("weight", last, dict(zip(self.label_names, weights, strict=True)))
        named = ("micro_f1", "hamming_loss", "map", "macro_f1")
        figures = {name: getattr(record, name) for name in named}
        self._add("val", last, {"loss": record.total_val_loss, **figures})
        for kind, losses_of in (("train_loss", record.train_loss), ("val_loss", record.val_loss)):
            self._add(kind, last, dict(zip(self.label_names, losses_of, strict=True)))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _add(self, group: str, step: int, values: dict[str, float | None]) -> None:
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(f"{group}/{name}", value, step)


def need_log(name: str | None) -> None:
    """Raise ValueError if what writes a log is not installed."""
    if name == "tensorboard" and find_spec("tensorboard") is None:
        raise ValueError(
            "log: expected tensorboard to be installed, it is not (pip install "
            '"fastmtl-torch[tensorboard]")'
        )


def open_log(
    name: str | None, path: Path, label_names: Sequence[str], epochs: int, steps: int
) -> Log:
    """The log that an option names, of a run of so many completed epochs and steps."""
    if name == "csv":
        return CsvLog(path, label_names, epochs)
    return TensorBoardLog(path, label_names, steps) if name == "tensorboard" else Log()
