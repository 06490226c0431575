"""Running means of the task losses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastmtl._checks import need_number


class RunningMeans(nn.Module):
    """Means (T,) of the task losses over about 1 / (1 - momentum) steps at which each counted.

        m_j = sum over the steps of momentum^age L_j / sum over the steps of momentum^age

    What a task's loss is expected to be, for methods that divide by it: on one batch, the loss of a
    rare label has nothing to do with that. `momentum` 0 gives the loss of the last step.
    """

    means: Tensor
    counts: Tensor

    def __init__(self, like: Tensor, momentum: float) -> None:
        super().__init__()
        need_number("momentum", momentum)
        if momentum >= 1:
            raise ValueError(f"momentum: expected a number in [0, 1), got {momentum}")
        self.momentum = momentum
        self.register_buffer("means", torch.zeros_like(like))
        self.register_buffer("counts", torch.zeros_like(like))

    def add(self, values: Tensor, counted: Tensor) -> None:
        """Take in the losses (T,) of a step, of the tasks that are `counted` (T,)."""
        counts = self.momentum * self.counts + 1
        means = self.means + (values - self.means) / counts
        self.means.copy_(torch.where(counted, means, self.means))
        self.counts.copy_(torch.where(counted, counts, self.counts))
