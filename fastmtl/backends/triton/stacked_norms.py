"""Norms over the leading dimension in Triton: row-wise reductions and scalings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastmtl.backends.precision import accumulation_dtype
from fastmtl.backends.triton.formulas import device_of, real

_BLOCK, _CHUNK = 1024, 16384  # _BLOCK elements at a time, _CHUNK a program


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
            grid = (triton.cdiv(rows.shape[1], _BLOCK) * rows.shape[0],)
            with device_of(part):
                _scale[grid](rows, factor, result, rows.shape[1], real(part), _BLOCK)
        grads.append(result)
    return grads


def row_dots(
    a: Tensor,  # (R, C)
    b: Tensor,  # (R, C)
    out: Tensor,  # (R,) float64
    accumulate: bool,
) -> None:
    """out (+)= sum_c a * b."""
    rows, columns = a.shape
    if not rows:
        return
    chunks = max(triton.cdiv(columns, _CHUNK), 1)
    partial = a.new_empty(rows, chunks, dtype=torch.float64)
    with device_of(a, b):
        _dots[rows * chunks,](
            *(a, a.stride(0), b, b.stride(0), partial, columns, chunks),
            *(real(a), _BLOCK, _CHUNK),
        )
        _add_chunks[rows,](partial, out, chunks, accumulate, _BLOCK)


@triton.jit
def _dots(
    a,  # (R, C)
    a_row,
    b,  # (R, C)
    b_row,
    partial,  # (R, chunks)
    columns,
    chunks,
    REAL: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
):
    item = tl.program_id(0).to(tl.int64)
    row = item // chunks
    begin = item % chunks * CHUNK
    sums = tl.zeros((BLOCK,), tl.float64)
    for first in range(0, CHUNK, BLOCK):
        column = begin + first + tl.arange(0, BLOCK)
        x = tl.load(a + row * a_row + column, column < columns, 0.0).to(REAL)
        y = tl.load(b + row * b_row + column, column < columns, 0.0).to(REAL)
        sums += x.to(tl.float64) * y.to(tl.float64)
    tl.store(partial + item, tl.sum(sums, 0))


@triton.jit
def _add_chunks(
    partial,  # (R, chunks)
    out,  # (R,) float64
    chunks,
    ACCUMULATE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    sums = tl.zeros((BLOCK,), tl.float64)
    for first in range(0, chunks, BLOCK):
        chunk = first + tl.arange(0, BLOCK)
        sums += tl.load(partial + row * chunks + chunk, chunk < chunks, 0.0)
    total = tl.sum(sums, 0)
    if ACCUMULATE:
        total += tl.load(out + row)
    tl.store(out + row, total)


@triton.jit
def _scale(
    a,  # (R, C)
    factor,  # (R,)
    out,  # (R, C)
    columns,
    REAL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    blocks = tl.cdiv(columns, BLOCK)
    item = tl.program_id(0).to(tl.int64)
    row = item // blocks
    column = item % blocks * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(a + row * columns + column, column < columns, 0.0).to(REAL)
    y = tl.load(factor + row) * x
    tl.store(out + row * columns + column, y.to(out.dtype.element_ty), column < columns)
