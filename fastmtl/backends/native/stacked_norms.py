"""Norms over the leading dimension, by the native kernels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastmtl.backends.native import memory
from fastmtl.backends.precision import accumulation_dtype


def stacked_norms_forward(
    stacked: Sequence[Tensor],  # each (T, ...)
) -> Tensor:
    first = stacked[0]
    squares = first.new_zeros(first.shape[0], dtype=torch.float64)
    for part in stacked:
        if part.numel():
            rows = part.reshape(part.shape[0], -1).contiguous()
            row_dots(rows, rows, squares, True)
    return squares.sqrt_().to(accumulation_dtype(first.dtype))


def stacked_norms_backward(
    grad: Tensor,  # (T,)
    norms: Tensor,  # (T,)
    stacked: Sequence[Tensor],  # each (T, ...)
) -> list[Tensor]:
    factor = torch.where(norms == 0, 0, grad / norms)
    grads = []
    for part in stacked:
        result = torch.empty_like(part, memory_format=torch.contiguous_format)
        if part.numel():
            rows = part.reshape(part.shape[0], -1).contiguous()
            memory.module(rows).scale_rows(
                memory.execution(rows),
                memory.matrix(rows),
                factor.data_ptr(),
                *rows.shape,
                result.data_ptr(),
            )
        grads.append(result)
    return grads


def row_dots(
    a: Tensor,  # (R, C)
    b: Tensor,  # (R, C) or (1, C)
    out: Tensor,  # (R,) float64
    accumulate: bool,
) -> None:
    """out (+)= sum_c a * b."""
    workspace = memory.workspace("row_dots", a, *a.shape)
    memory.module(a).row_dots(
        memory.execution(a, workspace),
        memory.matrix(a),
        memory.matrix(b),
        *a.shape,
        accumulate,
        out.data_ptr(),
    )
