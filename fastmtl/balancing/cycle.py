"""Mean losses over a training cycle."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CycleMeans(nn.Module):
    """Means (T,) of the task losses over the steps of a cycle at which each task counted."""

    sums: Tensor
    counts: Tensor

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros_like(like))
        self.register_buffer("counts", torch.zeros_like(like))

    def add(self, values: Tensor, counted: Tensor) -> None:
        """Take in the losses (T,) of a step, of the tasks that are `counted` (T,)."""
        sums = self.sums + torch.where(counted, values, 0)
        # A sum too large for the dtype is not taken.
        self.counts.add_(counted & sums.isfinite())
        self.sums.copy_(torch.where(sums.isfinite(), sums, self.sums))

    def finish(self) -> tuple[Tensor, Tensor]:
        """The means, which tasks had a loss above 0, and a new cycle. The others' mean is 1."""
        seen = self.sums > 0
        means = torch.where(seen, self.sums / self.counts, 1)
        self.sums.zero_()
        self.counts.zero_()
        return means, seen
