"""What a method is tried on: data, a network whose tasks part at one layer, losses and scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Score:
    """One measure of one task. A problem's tasks count the same however many scores each has."""

    task: int
    value: float
    higher_is_better: bool = True


class Problem(ABC):
    """Data, and how they are learned. `train` and `test` hold x first, and then the targets."""

    batch_size: int
    epochs: int
    lr: float = 2e-3

    def __init__(self, name: str, num_tasks: int, train: list[Tensor], test: list[Tensor]) -> None:
        self.name, self.num_tasks = name, num_tasks
        self.train, self.test = train, test

    @property
    def samples(self) -> int:
        return len(self.train[0])

    def positives(self) -> list[float]:
        """How many there are of each task; all samples, where nothing can be said to be rare."""
        return [float(self.samples)] * self.num_tasks

    @abstractmethod
    def network(self, width: int = 1) -> Network:
        """A new one, of so many times the hidden units."""

    @abstractmethod
    def losses(self, outputs: list[Tensor], targets: list[Tensor]) -> Tensor:
        """(T,), the mean of each task over the batch."""

    @abstractmethod
    def scores(self, outputs: list[Tensor], targets: list[Tensor]) -> list[Score]:
        """Of predictions for the test samples."""

    @abstractmethod
    def alone(self, task: int) -> Problem:
        """The problem of one of the tasks alone."""


class Network(nn.Module):
    """A trunk, a layer at which the tasks part, and what is each task's own.

    Args:
        trunk: all that the tasks share before `shared`.
        shared: a SharedLinear or TaskFork.
        heads: from its output, a tensor (T, N, ...), to a list of outputs.
    """

    def __init__(self, trunk: nn.Module, shared: nn.Module, heads: nn.Module) -> None:
        super().__init__()
        self.trunk, self.shared, self.heads = trunk, shared, heads

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs: list[Tensor] = self.heads(self.shared(self.trunk(x)))
        return outputs


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3 x 3, with batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def predict(network: nn.Module, x: Tensor, batch_size: int = 500) -> list[Tensor]:
    """The outputs for all samples, in evaluation."""
    network.eval()
    with torch.no_grad():
        parts = [network(rows) for rows in x.split(batch_size)]
    return [torch.cat(each) for each in zip(*parts, strict=True)]
