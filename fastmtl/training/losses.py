"""What a run minimises: one loss for each task, binary or multi-class."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastmtl.data import MultiTaskData
from fastmtl.data.tasks import Tasks
from fastmtl.nn import GroupedFocalLoss
from fastmtl.training.config import TrainConfig
from fastmtl.training.recipes import LOSSES

_MISSING = -100


class TaskLosses(nn.Module):
    """A loss of the binary tasks and a `GroupedFocalLoss` of the multi-class tasks behind them.

    Args:
        tasks: what the logits and targets are of, some of them multi-class.
        binary: the loss of the binary tasks, (N, t) to (t,).
        gamma: focusing parameter of the others.

    Shape:
        - logits: (N, sum of `tasks.sizes`).
        - targets: (N, T) of 0 and 1, or numbers of classes; NaN for a missing label.
        - Output: (T,), 0 for a task without a label.

    Examples:
        >>> from fastmtl.nn import FocalLoss
        >>> loss = TaskLosses(Tasks(["sea", "damage"], {"damage": ["none", "some"]}), FocalLoss())
        >>> loss(torch.zeros(2, 3), torch.tensor([[1.0, 0.0], [0.0, torch.nan]]))
        tensor([0.1733, 0.1733])
    """

    def __init__(self, tasks: Tasks, binary: nn.Module, gamma: float = 2.0) -> None:
        super().__init__()
        self.num_binary = tasks.num_binary
        self.binary = binary
        self.grouped = GroupedFocalLoss(tasks.num_classes, gamma=gamma, ignore_index=_MISSING)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        first = self.num_binary
        classes = targets[:, first:].nan_to_num(_MISSING).long()
        grouped: Tensor = self.grouped(logits[:, first:], classes)
        if not first:
            return grouped
        return torch.cat([self.binary(logits[:, :first], targets[:, :first]), grouped])


def build_loss(config: TrainConfig, data: MultiTaskData) -> nn.Module:
    """The loss that `config` names, and focal loss over the classes of tasks that have some.

    Raises ValueError for a loss that is of binary tasks alone.
    """
    tasks = data.tasks
    if tasks.class_names:
        named = ", ".join(tasks.class_names)
        if config.loss != "focal":
            raise ValueError(
                f"loss: expected focal for the multi-class tasks {named}, got {config.loss}"
            )
        if config.smoothing:
            raise ValueError(
                f"smoothing: expected 0 for the multi-class tasks {named}, got {config.smoothing}"
            )
    binary = LOSSES[config.loss].build(config, data)
    return TaskLosses(tasks, binary, config.gamma) if tasks.class_names else binary


def check_figures(config: TrainConfig, tasks: Tasks) -> None:
    """Raise ValueError if a run is to be chosen by a figure that its tasks do not have."""
    if config.monitor == "macro_f1" and not tasks.class_names:
        raise ValueError("monitor: expected macro_f1 only with multi-class tasks, got none")
    if tasks.num_binary:
        return
    if config.monitor == "micro_f1":
        raise ValueError("monitor: expected micro_f1 only with binary tasks, got none")
    if config.threshold != "half":
        raise ValueError(f"threshold: expected half without a binary task, got {config.threshold}")
