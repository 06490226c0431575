"""How the losses' kernels read tiles of matrices and reduce them, in a fixed order: every program
to partial sums, and these to the loss."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_PROGRAMS = 512
_LANES, _COLUMNS, _FLAT = 32, 32, 1024


def partial_sums(like: Tensor, programs: int, columns: int) -> Tensor:
    """Memory for the sums and counts of every program, (programs, 2, columns)."""
    return like.new_empty(programs, 2, columns, dtype=torch.float64)


def tile_of(columns: int, size: int) -> tuple[int, int]:
    """Rows and columns of a tile of `size` elements, of a matrix with so many columns."""
    width = min(triton.next_power_of_2(max(columns, 1)), 256)
    return size // width, width


@triton.jit
def load_tile(matrix, row_stride, column_stride, row, column, inside):
    offset = row[:, None] * row_stride + column[None, :] * column_stride
    return tl.load(matrix + offset, inside, 0)


@triton.jit
def store_sums(partial, sums, counts, column, columns):
    """What a program found, (rows, COLUMNS) by lane, as its part of `partial_sums`."""
    out = partial + 2 * tl.program_id(0).to(tl.int64) * columns + column
    tl.store(out, tl.sum(sums, 0).to(tl.float64), column < columns)
    tl.store(out + columns, tl.sum(counts, 0).to(tl.float64), column < columns)


def finish(
    partial: Tensor,  # (programs, 2, columns)
    reduction: str,
    loss: Tensor,  # (columns,) or ()
    scale: Tensor,  # (columns,)
) -> None:
    programs, _, columns = partial.shape
    if reduction == "task":
        grid = (triton.cdiv(columns, _COLUMNS),)
        if columns:
            _finish_columns[grid](partial, loss, scale, programs, columns, _LANES, _COLUMNS)
    else:
        mean = reduction == "mean"
        _finish_all[(1,)](partial, loss, scale, programs, columns, mean, _FLAT)


@triton.jit
def _finish_columns(
    partial,  # (programs, 2, columns)
    loss,  # (columns,)
    scale,  # (columns,)
    programs,
    columns,
    LANES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    sums = tl.zeros((LANES, COLUMNS), tl.float64)
    counts = tl.zeros((LANES, COLUMNS), tl.float64)
    for first in range(0, programs, LANES):
        program = first + tl.arange(0, LANES)
        inside = (program < programs)[:, None] & (column < columns)[None, :]
        index = 2 * program.to(tl.int64)[:, None] * columns + column[None, :]
        sums += tl.load(partial + index, inside, 0.0)
        counts += tl.load(partial + index + columns, inside, 0.0)
    count = tl.sum(counts, 0)
    factor = tl.where(count > 0, 1 / tl.maximum(count, 1.0), 0.0)
    total = tl.where(count > 0, tl.sum(sums, 0) * factor, 0.0)
    tl.store(loss + column, total.to(loss.dtype.element_ty), column < columns)
    tl.store(scale + column, factor.to(scale.dtype.element_ty), column < columns)


@triton.jit
def _finish_all(
    partial,  # (programs, 2, columns)
    loss,  # ()
    scale,  # (columns,)
    programs,
    columns,
    MEAN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    sums = tl.zeros((BLOCK,), tl.float64)
    counts = tl.zeros((BLOCK,), tl.float64)
    total = tl.full((), programs, tl.int64) * columns  # one program is a constant
    for first in range(0, total, BLOCK):
        item = first + tl.arange(0, BLOCK).to(tl.int64)
        index = item // columns * 2 * columns + item % columns
        sums += tl.load(partial + index, item < total, 0.0)
        counts += tl.load(partial + index + columns, item < total, 0.0)
    count = tl.sum(counts, 0)
    factor = tl.where(count > 0, 1 / tl.maximum(count, 1.0), 0.0) if MEAN else count * 0 + 1
    result = tl.sum(sums, 0) * factor
    if MEAN:
        result = tl.where(count > 0, result, 0.0)
    tl.store(loss, result.to(loss.dtype.element_ty))
    for first in range(0, columns, BLOCK):
        column = first + tl.arange(0, BLOCK)
        values = tl.zeros((BLOCK,), tl.float64) + factor
        tl.store(scale + column, values.to(scale.dtype.element_ty), column < columns)
