"""Inner products of per-task gradients that are summed over the ranks of a process group.

The gradient of task j for the weight of y = x W^T is the sum of d_j^T x over the ranks' batches. An
inner product of two such gradients is a sum over the O columns of d, so each of R ranks takes O / R
columns, for the whole batch of all ranks, and the partial results, T or T^2 numbers, are added up.

The ranks can exchange either side of d_j^T x: their x and columns of d, or their columns of the T
gradients. A rank sends, in numbers,

    inputs:     (R - 1) N (I + T O / R)
    gradients:  (R - 1) / R T O I

of which the smaller is taken: the inputs where a batch has fewer rows than x has features.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.nn import functional as F

from fastmtl.backends.precision import accumulation_dtype, full_precision


def several() -> bool:
    """Whether torch.distributed runs more processes than this one."""
    running = distributed.is_available() and distributed.is_initialized()
    return running and distributed.get_world_size() > 1


def share_columns(
    inputs: Tensor,  # (N, I)
    grad_outputs: Tensor,  # (T, N, O)
    group: distributed.ProcessGroup,
) -> tuple[Tensor, Tensor]:
    """Inputs (N', I') and grad_outputs (T, N', O') whose Gramians, added over the ranks, are the
    Gramian of the gradients summed over the ranks. N may differ between ranks."""
    ranks = distributed.get_world_size(group)
    rows = _gather_sizes(len(inputs), inputs.device, group)
    padded = F.pad(grad_outputs, (0, -grad_outputs.shape[2] % ranks))
    tasks, _, columns = padded.shape
    by_rank = padded.unflatten(2, (ranks, -1)).movedim(2, 0)  # (R, T, N, O / R)
    features, share = inputs.shape[1], tasks * columns // ranks
    if max(rows) * (features + share) < features * share:
        return _exchange_inputs(inputs, by_rank, rows, group)
    return _exchange_gradients(inputs, by_rank, group)


def _gather_sizes(size: int, device: torch.device, group: distributed.ProcessGroup) -> list[int]:
    sizes = torch.empty(distributed.get_world_size(group), 1, dtype=torch.int64, device=device)
    distributed.all_gather(list(sizes), torch.tensor([size], device=device), group=group)
    return [int(size) for size in sizes.flatten().tolist()]


def _exchange_inputs(
    inputs: Tensor,  # (N, I)
    by_rank: Tensor,  # (R, T, N, O / R)
    rows: list[int],
    group: distributed.ProcessGroup,
) -> tuple[Tensor, Tensor]:
    """x and this rank's columns of d, of all ranks' rows."""
    ranks, tasks, _, columns = by_rank.shape
    sent = torch.cat([inputs.expand(ranks, -1, -1).flatten(1), by_rank.flatten(1)], 1)
    each = inputs.shape[1] + tasks * columns
    received = sent.new_empty(sum(rows) * each)
    distributed.all_to_all_single(
        received, sent.flatten(), [n * each for n in rows], [sent.shape[1]] * ranks, group=group
    )
    parts = [
        part.split([n * inputs.shape[1], n * tasks * columns])
        for n, part in zip(rows, received.split([n * each for n in rows]), strict=True)
    ]
    x = torch.cat([part.view(-1, inputs.shape[1]) for part, _ in parts])
    d = [part.view(tasks, n, columns) for n, (_, part) in zip(rows, parts, strict=True)]
    return x, torch.cat(d, 1)


def _exchange_gradients(
    inputs: Tensor,  # (N, I)
    by_rank: Tensor,  # (R, T, N, O / R)
    group: distributed.ProcessGroup,
) -> tuple[Tensor, Tensor]:
    """This rank's columns of the gradients, as the gradients of a linear map of the one input 1."""
    dtype = accumulation_dtype(inputs.dtype)
    with full_precision(inputs.device):
        grads = (by_rank.to(dtype).mT @ inputs.to(dtype)).flatten(1)  # (R, T O / R I)
    share = grads.new_empty(grads.shape[1])
    distributed.reduce_scatter(share, list(grads), group=group)
    return share.new_ones(1, 1), share.view(by_rank.shape[1], 1, -1)
