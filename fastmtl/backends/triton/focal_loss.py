"""Focal multi-task loss in Triton: two launches forward, one backward."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastmtl.backends.losses import results
from fastmtl.backends.triton.formulas import (
    bytes_of,
    device_of,
    focal,
    focal_slope,
    gamma_kind,
    halves,
    joined,
    real,
)
from fastmtl.backends.triton.reduction import (
    MOST_PROGRAMS,
    finish,
    load_tile,
    partial_sums,
    store_sums,
    tile_of,
)

_TILE = 2048


def focal_loss_forward(
    logits: Tensor,  # (N, T)
    targets: Tensor,  # (N, T)
    mask: Tensor | None,  # (N, T)
    pos_weight: Tensor | None,  # (T,)
    gamma: float,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    rows, tasks = logits.shape
    elementwise = reduction == "none"
    loss, scale = results(logits, rows, tasks, reduction)
    tile_rows, columns = tile_of(tasks, _TILE)
    programs = min(max(triton.cdiv(rows, tile_rows), 1), MOST_PROGRAMS)
    partial = partial_sums(logits, 0 if elementwise else programs, tasks)
    with device_of(logits, targets, mask, pos_weight):
        if tasks:
            _forward[programs, triton.cdiv(tasks, columns)](
                *_arguments(logits, targets, mask, pos_weight, gamma),
                loss if elementwise else None,
                partial,
                REAL=real(logits),
                KIND=gamma_kind(gamma),
                ROWS=tile_rows,
                COLUMNS=columns,
            )
        if elementwise:
            scale.fill_(1)
        else:
            finish(partial, reduction, loss, scale)
    return loss, scale


def focal_loss_backward(
    grad_loss: Tensor,  # (T,), () or (N, T), as the reduction
    scale: Tensor,  # (T,)
    logits: Tensor,  # (N, T)
    targets: Tensor,  # (N, T)
    mask: Tensor | None,  # (N, T)
    pos_weight: Tensor | None,  # (T,)
    gamma: float,
    reduction: str,
) -> Tensor:
    rows, tasks = logits.shape
    grad_logits = torch.empty_like(logits, memory_format=torch.contiguous_format)
    tile_rows, columns = tile_of(tasks, _TILE)
    upstream = grad_loss.expand(rows, tasks)
    if rows and tasks:
        with device_of(logits, targets, mask, pos_weight):
            _backward[triton.cdiv(rows, tile_rows), triton.cdiv(tasks, columns)](
                *_arguments(logits, targets, mask, pos_weight, gamma),
                upstream,
                *upstream.stride(),
                scale,
                grad_logits,
                REAL=real(logits),
                KIND=gamma_kind(gamma),
                ROWS=tile_rows,
                COLUMNS=columns,
            )
    return grad_logits


def _arguments(
    logits: Tensor, targets: Tensor, mask: Tensor | None, pos_weight: Tensor | None, gamma: float
) -> tuple[Tensor | int | float | None, ...]:
    """What both kernels begin with."""
    targets = bytes_of(targets)
    return (
        *(logits, *logits.stride()),
        *(targets, *targets.stride()),
        *((None, 0, 0) if mask is None else (bytes_of(mask), *mask.stride())),
        None if pos_weight is None else pos_weight.contiguous(),
        *logits.shape,
        *halves(gamma),
    )


@triton.jit
def _labels(
    targets, y_row, y_column, mask, m_row, m_column, row, column, inside, REAL: tl.constexpr
):
    """Labels, and whether they are present."""
    y = load_tile(targets, y_row, y_column, row, column, inside).to(REAL)
    present = inside & (y == y)
    if mask is not None:
        present = present & (load_tile(mask, m_row, m_column, row, column, inside) != 0)
    return y, present


@triton.jit
def _weights(pos_weight, column, tasks, REAL: tl.constexpr):
    """Weights of positives, one a column."""
    if pos_weight is not None:
        weight = tl.load(pos_weight + column, column < tasks, 1.0).to(REAL)
    else:
        weight = tl.full(column.shape, 1.0, REAL)
    return weight


@triton.jit
def _forward(
    logits,  # (N, T)
    z_row,
    z_column,
    targets,  # (N, T)
    y_row,
    y_column,
    mask,  # (N, T) or None
    m_row,
    m_column,
    pos_weight,  # (T,) or None
    rows,
    tasks,
    gamma_high,
    gamma_low,
    loss,  # (N, T), or None: reduced
    partial,  # (programs, 2, T)
    REAL: tl.constexpr,
    KIND: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    gamma = joined(gamma_high, gamma_low, REAL)
    column = tl.program_id(1).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    weight = _weights(pos_weight, column, tasks, REAL)
    sums = tl.zeros((ROWS, COLUMNS), REAL)
    counts = tl.zeros((ROWS, COLUMNS), tl.int32)
    step = tl.num_programs(0) * ROWS
    for first in range(tl.program_id(0).to(tl.int64) * ROWS, rows, step):
        row = first + tl.arange(0, ROWS).to(tl.int64)
        inside = (row < rows)[:, None] & (column < tasks)[None, :]
        z = load_tile(logits, z_row, z_column, row, column, inside).to(REAL)
        y, present = _labels(
            targets, y_row, y_column, mask, m_row, m_column, row, column, inside, REAL
        )
        positive = y == 1
        value = focal(tl.where(positive, z, -z), gamma, KIND)
        value = tl.where(positive, value * weight[None, :], value)
        value = tl.where(positive | (y == 0), value, float("nan"))
        value = tl.where(present, value, 0.0)
        if loss is not None:
            tl.store(loss + row[:, None] * tasks + column[None, :], value, inside)
        sums += value
        counts += present.to(tl.int32)
    if loss is None:
        store_sums(partial, sums, counts, column, tasks)


@triton.jit
def _backward(
    logits,  # (N, T)
    z_row,
    z_column,
    targets,  # (N, T)
    y_row,
    y_column,
    mask,  # (N, T) or None
    m_row,
    m_column,
    pos_weight,  # (T,) or None
    rows,
    tasks,
    gamma_high,
    gamma_low,
    upstream,  # (N, T)
    g_row,
    g_column,
    scale,  # (T,)
    grad_logits,  # (N, T)
    REAL: tl.constexpr,
    KIND: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    gamma = joined(gamma_high, gamma_low, REAL)
    column = tl.program_id(1).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = (row < rows)[:, None] & (column < tasks)[None, :]
    weight = _weights(pos_weight, column, tasks, REAL)
    coefficient = tl.load(scale + column, column < tasks, 0.0)[None, :] * load_tile(
        upstream, g_row, g_column, row, column, inside
    )
    z = load_tile(logits, z_row, z_column, row, column, inside).to(REAL)
    y, present = _labels(targets, y_row, y_column, mask, m_row, m_column, row, column, inside, REAL)
    positive = y == 1
    slope = coefficient * focal_slope(tl.where(positive, z, -z), gamma, KIND)
    slope = tl.where(positive, slope * weight[None, :], -slope)
    slope = tl.where(positive | (y == 0), slope, float("nan"))
    slope = tl.where(present, slope, 0.0)
    out = grad_logits + row[:, None] * tasks + column[None, :]
    tl.store(out, slope.to(grad_logits.dtype.element_ty), inside)
