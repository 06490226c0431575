"""What a run is between two epochs: everything that its continuation depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fastmtl.training.history import EpochRecord


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

    def add(self, record: EpochRecord) -> bool:
        """Append an epoch; True if it is the best so far."""
        improved = not self.best_epoch or (
            record.score(self.monitor) > self.history[self.best_epoch - 1].score(self.monitor)
        )
        self.history.append(record)
        if improved:
            self.best_epoch = record.epoch
        return improved

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
        return cls(history, values["best_epoch"], values["monitor"])


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by names `parameter index.entry`, such as `0.exp_avg`."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{key}": value for i, entry in state.items() for key, value in entry.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimizer over the same parameters the state that `optimizer_tensors` named."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
