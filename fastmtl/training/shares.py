"""Which samples each of several processes takes, so that together they take those of one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastmtl.training.batches import Batch


class Share(NamedTuple):
    """The samples of one process, in batches of `batch_size` that are in step with the others'.

    Where a batch of all processes cannot be divided evenly, some take one of its samples twice, and
    count it once: `counted` is False there. None stands for True everywhere.
    """

    rows: Tensor  # (n,)
    counted: Tensor | None  # (n,) bool
    batch_size: int

    def only_counted(self, step: int, batch: Batch) -> Batch:
        """Batch number `step` (from 0) with no label for the samples that do not count."""
        if self.counted is None:
            return batch
        start = step * self.batch_size
        counted = self.counted[start : start + len(batch.targets)]
        if bool(counted.all()):
            return batch
        counted = counted.to(batch.targets.device).unsqueeze(1)
        targets = batch.targets.masked_fill(~counted, torch.nan)
        counts = (~targets.isnan()).sum(0).to(batch.counts.dtype)
        return batch._replace(targets=targets, counts=counts)


def share_of_batches(order: Tensor, batch_size: int, rank: int, size: int) -> Share:
    """What process `rank` of `size` takes of every mini-batch of an epoch.

    Args:
        order: (n,), the samples of the epoch.
        batch_size: samples in a mini-batch of all processes.
        rank: from 0.
        size: how many processes there are.

    Examples:
        >>> share_of_batches(torch.arange(5), 3, rank=1, size=2)
        Share(rows=tensor([2, 2, 4]), counted=tensor([ True, False,  True]), batch_size=2)
    """
    if size == 1:
        return Share(order, None, batch_size)
    whole = len(order) // batch_size * batch_size
    parts = [order[:whole].view(-1, batch_size), order[whole:].unsqueeze(0)]
    shares = [_columns(part, rank, size) for part in parts if part.numel()]
    rows, counted = (torch.cat([share[i].flatten() for share in shares]) for i in (0, 1))
    return Share(rows, None if bool(counted.all()) else counted, -(-batch_size // size))


def _columns(batches: Tensor, rank: int, size: int) -> tuple[Tensor, Tensor]:
    """Columns of batches (n, B), as many for every rank, and which of them count."""
    columns = batches.shape[1]
    least, more = divmod(columns, size)
    own = least + (rank < more)
    place = torch.arange(-(-columns // size))
    index = (rank * least + min(rank, more) + place).clamp(max=columns - 1)
    return batches[:, index], (place < own).expand(len(batches), -1)


def share_of_rows(rows: Tensor, rank: int, size: int) -> Tensor:
    """Equally many rows for every process, one after another; the last row fills up.

    Examples:
        >>> share_of_rows(torch.arange(5), rank=1, size=2)
        tensor([3, 4, 4])
    """
    if size == 1 or not len(rows):
        return rows
    width = -(-len(rows) // size)
    return rows[torch.arange(rank * width, (rank + 1) * width).clamp(max=len(rows) - 1)]
