"""What the kernels of the GRU layer's recurrence are told in the same way."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl.backends.native import memory


def rows_of(lengths: Tensor, like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Memory for values of all rows, 0 in those that no sequence has."""
    covered = int(lengths.sum()) == like.shape[-2]
    return like.new_empty(shape) if covered else like.new_zeros(shape)


def recurrence(
    weight_hh: Tensor,  # (T, dirs, 3h, h)
    starts: Tensor,  # (B,)
    lengths: Tensor,  # (B,)
    gates: Tensor,  # (R, T * dirs * 3h) or (T, R, dirs * 3h)
    workspace: Tensor | None = None,
) -> tuple[memory.Argument, ...]:
    """What all calls begin with."""
    tasks, directions, width, hidden = weight_hh.shape
    strides = (directions * width, gates.stride(0)) if gates.dim() == 2 else gates.stride()[:2]
    return (
        memory.execution(gates, workspace),
        memory.DTYPES[gates.dtype],
        memory.address(weight_hh),
        starts.data_ptr(),
        lengths.data_ptr(),
        tasks,
        directions,
        lengths.shape[0],
        gates.shape[-2],
        hidden,
        *strides,
    )


def bias_gradients(
    grad_bias: Tensor,  # (T, dirs, 4h)
    needs: list[bool],
) -> tuple[Tensor, Tensor]:
    """The gradients of bias_ih and bias_hh, (T, dirs, 3h) each: only those of n differ."""
    hidden = grad_bias.shape[2] // 4
    reset_update, new, new_recurrent = grad_bias.split([2 * hidden, hidden, hidden], 2)
    grad_ih, grad_hh = (
        torch.cat([reset_update, own], 2) if need else grad_bias.new_empty(0)
        for own, need in zip((new, new_recurrent), needs, strict=True)
    )
    return grad_ih, grad_hh
