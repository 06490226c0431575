"""What a run is between two epochs: everything that its continuation depends on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fastmtl.data import Standardizer
from fastmtl.training.checkpoint import take_prefix, with_prefix
from fastmtl.training.ema import Ema
from fastmtl.training.history import EpochRecord
from fastmtl.training.thresholds import HALF

# What Adam holds of every parameter that it has stepped.
_ADAM = ("exp_avg", "exp_avg_sq", "step")


@dataclass
class Progress:
    """The epochs so far, and the best of them by `monitor` (0 before the first)."""

    history: list[EpochRecord] = field(default_factory=list)
    best_epoch: int = 0
    monitor: str = "loss"

    @property
    def epoch(self) -> int:
        """Completed epochs."""
        return len(self.history)

    @property
    def threshold(self) -> float:
        """That of the best epoch's decisions."""
        return self.history[self.best_epoch - 1].threshold if self.best_epoch else HALF

    def add(self, record: EpochRecord) -> bool:
        """Append an epoch; True if it is the best so far, between equal scores by the loss."""
        improved = not self.best_epoch or (
            self._rank(record) > self._rank(self.history[self.best_epoch - 1])
        )
        self.history.append(record)
        if improved:
            self.best_epoch = record.epoch
        return improved

    def _rank(self, record: EpochRecord) -> tuple[float, float]:
        return record.score(self.monitor), -record.total_val_loss

    def finished(self, epochs: int, patience: int) -> bool:
        """Whether all epochs are done, or `patience` of them passed without a better one."""
        return self.epoch >= epochs or self.epoch - self.best_epoch >= patience

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        return {
            "best_epoch": self.best_epoch,
            "monitor": self.monitor,
            "history": [record.to_dict() for record in self.history],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Progress:
        """The progress that `to_dict` gave."""
        history = [EpochRecord.from_dict(record) for record in values["history"]]
        best, epochs = values["best_epoch"], [record.epoch for record in history]
        if epochs != list(range(1, len(epochs) + 1)) or best not in (epochs or [0]):
            raise ValueError(f"the best of the epochs {epochs} is said to be {best!r}")
        return cls(history, best, values["monitor"])


@dataclass
class RunState:
    """What trains, and how far it has come; `best` holds the model's tensors of the best epoch."""

    model: nn.Module
    balancer: nn.Module
    optimizer: torch.optim.Optimizer
    standardizer: Standardizer | None
    progress: Progress
    scaler: torch.amp.GradScaler | None = None
    ema: Ema | None = None
    best: dict[str, Tensor] = field(default_factory=dict)

    def keep_best(self) -> None:
        """Let the model as it is, or the average of its weights, be the best."""
        self.best = _copies(self.model.state_dict() if self.ema is None else self.ema.tensors)

    def tensors(self) -> dict[str, Tensor]:
        """Copies of everything that a continuation needs and that changes."""
        tensors = {
            **with_prefix("model", self.model.state_dict()),
            **with_prefix("balancer", self.balancer.state_dict()),
            **with_prefix("optimizer", optimizer_tensors(self.optimizer)),
        }
        if self.ema is not None:
            tensors |= with_prefix("ema", self.ema.tensors)
        return {**_copies(tensors), **with_prefix("best", self.best)}

    def model_tensors(self, best: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What is needed to read new data: a model's tensors, and the standardisation."""
        tensors = with_prefix("model", best)
        if self.standardizer is not None:
            tensors |= with_prefix("standardizer", self.standardizer.state_dict())
        return tensors

    def values(self) -> dict[str, Any]:
        """The JSON-able part of the state."""
        stepped = sorted(self.optimizer.state_dict()["state"])
        values = {**self.progress.to_dict(), "optimized": stepped}
        if self.scaler is not None:
            values["scaler"] = self.scaler.state_dict()
        return values

    def load(
        self, tensors: Mapping[str, Tensor], values: Mapping[str, Any], device: torch.device
    ) -> None:
        """Go back to what `tensors` and `values` gave.

        Raises ValueError, TypeError, LookupError or RuntimeError for anything else.
        """
        progress = Progress.from_dict(values)
        own = self.model.state_dict()
        best = take_prefix("best", tensors)
        expect("best", best, own if progress.epoch else ())
        for name, value in best.items():
            _expect_shape(f"best.{name}", value, own[name])
        averages = take_prefix("ema", tensors)
        expect("ema", averages, own if self.ema is not None else ())
        for name, value in averages.items():
            _expect_shape(f"ema.{name}", value, own[name])
        optimized = [f"{index}.{key}" for index in values["optimized"] for key in _ADAM]
        optimizer = take_prefix("optimizer", tensors)
        expect("optimizer", optimizer, optimized)
        self.model.load_state_dict(take_prefix("model", tensors))
        self.balancer.load_state_dict(take_prefix("balancer", tensors))
        load_optimizer(self.optimizer, optimizer)
        if self.ema is not None:
            self.ema.load(averages)
        if self.scaler is not None:
            self.scaler.load_state_dict(values["scaler"])
        self.best = {name: value.to(device) for name, value in best.items()}
        self.progress = progress


def expect(kind: str, tensors: Mapping[str, Tensor], names: Iterable[str]) -> None:
    """Raise ValueError unless `tensors` have exactly these names.

    Examples:
        >>> expect("best", {}, ["weight"])
        Traceback (most recent call last):
            ...
        ValueError: best: expected weight, got none
    """
    if differing := sorted(set(tensors) ^ set(names)):
        there = differing[0] in tensors
        wanted, got = ("nothing more", differing[0]) if there else (differing[0], "none")
        raise ValueError(f"{kind}: expected {wanted}, got {got}")


def _expect_shape(name: str, tensor: Tensor, like: Tensor) -> None:
    if tensor.shape != like.shape:
        shapes = f"{tuple(like.shape)}, got {tuple(tensor.shape)}"
        raise ValueError(f"{name}: expected shape {shapes}")


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by names `parameter index.entry`, such as `0.exp_avg`."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{key}": value for i, entry in state.items() for key, value in entry.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimizer over the same parameters the state that `optimizer_tensors` named.

    Raises ValueError unless it is whole, and of the parameters' shapes.
    """
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    for number, entry in state.items():
        expect(f"optimizer.{number}", entry, _ADAM)
        for key in _ADAM[:2]:
            _expect_shape(f"optimizer.{number}.{key}", entry[key], parameters[number])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
