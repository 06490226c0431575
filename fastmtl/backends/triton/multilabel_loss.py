"""Multi-label loss in Triton: two launches forward, one backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastmtl.backends.losses import MultilabelOptions, results
from fastmtl.backends.triton.formulas import bytes_of, device_of, halves, joined, real
from fastmtl.backends.triton.multilabel_formulas import MOST_WHOLE, multilabel, multilabel_slope
from fastmtl.backends.triton.reduction import (
    MOST_PROGRAMS,
    finish,
    load_tile,
    partial_sums,
    store_sums,
    tile_of,
)

_TILE = 1024


def multilabel_loss_forward(
    logits: Tensor,  # (N, T)
    targets: Tensor,  # (N, T)
    weight: Tensor | None,  # (N, T)
    gamma_pos: Tensor | None,  # (T,)
    gamma_neg: Tensor | None,  # (T,)
    pos_weight: Tensor | None,  # (T,)
    neg_weight: Tensor | None,  # (T,)
    shift: Tensor | None,  # (T,)
    options: Sequence[float],  # MultilabelOptions
    detach_focus: bool,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    rows, tasks = logits.shape
    elementwise = reduction == "none"
    loss, scale = results(logits, rows, tasks, reduction)
    tile_rows, columns = tile_of(tasks, _TILE)
    programs = min(max(triton.cdiv(rows, tile_rows), 1), MOST_PROGRAMS)
    partial = partial_sums(logits, 0 if elementwise else programs, tasks)
    of_tasks = (gamma_pos, gamma_neg, pos_weight, neg_weight, shift)
    with device_of(logits, targets, weight, *of_tasks):
        if tasks:
            _forward[programs, triton.cdiv(tasks, columns)](
                *_arguments(logits, targets, weight, of_tasks, options),
                loss if elementwise else None,
                partial,
                **_constants(logits, gamma_pos, gamma_neg, options),
                ROWS=tile_rows,
                COLUMNS=columns,
            )
        if elementwise:
            scale.fill_(1)
        else:
            finish(partial, reduction, loss, scale)
    return loss, scale


def multilabel_loss_backward(
    grad_loss: Tensor,  # (T,), () or (N, T), as the reduction
    scale: Tensor,  # (T,)
    logits: Tensor,  # (N, T)
    targets: Tensor,  # (N, T)
    weight: Tensor | None,  # (N, T)
    gamma_pos: Tensor | None,  # (T,)
    gamma_neg: Tensor | None,  # (T,)
    pos_weight: Tensor | None,  # (T,)
    neg_weight: Tensor | None,  # (T,)
    shift: Tensor | None,  # (T,)
    options: Sequence[float],  # MultilabelOptions
    detach_focus: bool,
    reduction: str,
) -> Tensor:
    rows, tasks = logits.shape
    grad_logits = torch.empty_like(logits, memory_format=torch.contiguous_format)
    tile_rows, columns = tile_of(tasks, _TILE)
    upstream = grad_loss.expand(rows, tasks)
    of_tasks = (gamma_pos, gamma_neg, pos_weight, neg_weight, shift)
    if rows and tasks:
        with device_of(logits, targets, weight, *of_tasks):
            _backward[triton.cdiv(rows, tile_rows), triton.cdiv(tasks, columns)](
                *_arguments(logits, targets, weight, of_tasks, options),
                (upstream, *upstream.stride()),
                scale,
                grad_logits,
                **_constants(logits, gamma_pos, gamma_neg, options),
                DETACH=detach_focus,
                ROWS=tile_rows,
                COLUMNS=columns,
            )
    return grad_logits


def _arguments(
    logits: Tensor,
    targets: Tensor,
    weight: Tensor | None,
    of_tasks: tuple[Tensor | None, ...],
    options: Sequence[float],
) -> tuple[Any, ...]:
    """What both kernels begin with."""
    targets = bytes_of(targets)
    return (
        (logits, *logits.stride()),
        (targets, *targets.stride()),
        (None, 0, 0) if weight is None else (bytes_of(weight), *weight.stride()),
        *logits.shape,
        tuple(None if tensor is None else tensor.contiguous() for tensor in of_tasks),
        tuple(halves(option) for option in options),
    )


def _constants(
    logits: Tensor, gamma_pos: Tensor | None, gamma_neg: Tensor | None, options: Sequence[float]
) -> dict[str, Any]:
    """What both kernels are compiled for."""
    powers = MultilabelOptions(*options)[:2]
    whole = gamma_pos is None and gamma_neg is None
    whole = whole and all(power in range(MOST_WHOLE + 1) for power in powers)
    pos, neg = map(int, powers) if whole else (-1, -1)
    clipped = MultilabelOptions(*options).clip > 0
    return {"REAL": real(logits), "CLIPPED": clipped, "POS": pos, "NEG": neg}


@triton.jit
def _numbers(values, number, column, tasks, REAL: tl.constexpr):
    """A number of every column, (1, COLUMNS)."""
    if values is not None:
        result = tl.load(values + column, column < tasks, 1.0).to(REAL)
    else:
        result = tl.zeros(column.shape, REAL) + joined(*number, REAL)
    return result[None, :]


@triton.jit
def _power(gamma):
    """NaN below 0, which has no loss."""
    return tl.where(gamma >= 0, gamma, float("nan"))


@triton.jit
def _of_columns(of_tasks, numbers, column, tasks, REAL: tl.constexpr):
    """Powers and factors of positives and negatives, and shifts, each (1, COLUMNS)."""
    pos_power = _power(_numbers(of_tasks[0], numbers[0], column, tasks, REAL))
    neg_power = _power(_numbers(of_tasks[1], numbers[1], column, tasks, REAL))
    pos_factor = _numbers(of_tasks[2], numbers[2], column, tasks, REAL)
    neg_factor = _numbers(of_tasks[3], numbers[3], column, tasks, REAL)
    shift = _numbers(of_tasks[4], numbers[4], column, tasks, REAL)
    return pos_power, neg_power, pos_factor, neg_factor, shift


@triton.jit
def _of_all(numbers, REAL: tl.constexpr):
    """Clip, poly, smoothing and neg_scale."""
    clip, poly = joined(*numbers[5], REAL), joined(*numbers[6], REAL)
    return clip, poly, joined(*numbers[7], REAL), joined(*numbers[8], REAL)


@triton.jit
def _tile(matrix, row, column, inside):
    """A tile of a matrix that is given with its strides."""
    return load_tile(*matrix, row, column, inside)


@triton.jit
def _labels(targets, weight, row, column, inside, smoothing, REAL: tl.constexpr):
    """Labels, whether they are present, and the elements' weights."""
    y = _tile(targets, row, column, inside).to(REAL)
    present = inside & (y == y)
    share = y * 0 + 1
    if weight[0] is not None:
        share = _tile(weight, row, column, inside).to(REAL)
        present = present & (share != 0)
    return y + smoothing * (0.5 - y), present, share


@triton.jit
def _forward(
    logits,  # (N, T) and strides, as the next two
    targets,
    weight,  # or None
    rows,
    tasks,
    of_tasks,  # each (T,) or None, as MultilabelOptions begins
    numbers,  # MultilabelOptions, each in halves
    loss,  # (N, T), or None: reduced
    partial,  # (programs, 2, T)
    REAL: tl.constexpr,
    CLIPPED: tl.constexpr,
    POS: tl.constexpr,
    NEG: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    clip, poly, smoothing, neg_scale = _of_all(numbers, REAL)
    column = tl.program_id(1).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    pos_power, neg_power, pos_factor, neg_factor, shift = _of_columns(
        of_tasks, numbers, column, tasks, REAL
    )
    sums = tl.zeros((ROWS, COLUMNS), REAL)
    counts = tl.zeros((ROWS, COLUMNS), tl.int32)
    step = tl.num_programs(0) * ROWS
    for first in range(tl.program_id(0).to(tl.int64) * ROWS, rows, step):
        row = first + tl.arange(0, ROWS).to(tl.int64)
        inside = (row < rows)[:, None] & (column < tasks)[None, :]
        z = _tile(logits, row, column, inside).to(REAL) + shift
        y, present, share = _labels(targets, weight, row, column, inside, smoothing, REAL)
        positive = y > 0
        gamma = tl.where(positive, pos_power, neg_power)
        factor = share * tl.where(positive, y * pos_factor, neg_factor)
        value = factor * multilabel(z, positive, gamma, clip, poly, neg_scale, CLIPPED, POS, NEG)
        soft = present & positive & (y < 1)
        if tl.max(soft.to(tl.int32)) > 0:
            rest = multilabel(z, y != y, neg_power, clip, poly, neg_scale, CLIPPED, POS, NEG)
            value += tl.where(soft, share * (1 - y) * neg_factor * rest, 0.0)
        value = tl.where((y >= 0) & (y <= 1), value, float("nan"))
        value = tl.where(present, value, 0.0)
        if loss is not None:
            tl.store(loss + row[:, None] * tasks + column[None, :], value, inside)
        sums += value
        counts += present.to(tl.int32)
    if loss is None:
        store_sums(partial, sums, counts, column, tasks)


@triton.jit
def _backward(
    logits,  # (N, T) and strides, as the next two
    targets,
    weight,  # or None
    rows,
    tasks,
    of_tasks,  # each (T,) or None, as MultilabelOptions begins
    numbers,  # MultilabelOptions, each in halves
    upstream,  # (N, T) and strides
    scale,  # (T,)
    grad_logits,  # (N, T)
    REAL: tl.constexpr,
    CLIPPED: tl.constexpr,
    POS: tl.constexpr,
    NEG: tl.constexpr,
    DETACH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    clip, poly, smoothing, neg_scale = _of_all(numbers, REAL)
    column = tl.program_id(1).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = (row < rows)[:, None] & (column < tasks)[None, :]
    pos_power, neg_power, pos_factor, neg_factor, shift = _of_columns(
        of_tasks, numbers, column, tasks, REAL
    )
    coefficient = tl.load(scale + column, column < tasks, 0.0)[None, :]
    coefficient *= _tile(upstream, row, column, inside)
    z = _tile(logits, row, column, inside).to(REAL) + shift
    y, present, share = _labels(targets, weight, row, column, inside, smoothing, REAL)
    share *= coefficient
    positive = y > 0
    gamma = tl.where(positive, pos_power, neg_power)
    factor = share * tl.where(positive, y * pos_factor, neg_factor)
    slope = factor * multilabel_slope(
        z, positive, gamma, clip, poly, neg_scale, CLIPPED, POS, NEG, DETACH
    )
    soft = present & positive & (y < 1)
    if tl.max(soft.to(tl.int32)) > 0:
        rest = multilabel_slope(
            z, y != y, neg_power, clip, poly, neg_scale, CLIPPED, POS, NEG, DETACH
        )
        slope += tl.where(soft, share * (1 - y) * neg_factor * rest, 0.0)
    slope = tl.where((y >= 0) & (y <= 1), slope, float("nan"))
    slope = tl.where(present, slope, 0.0)
    out = grad_logits + row[:, None] * tasks + column[None, :]
    tl.store(out, slope.to(grad_logits.dtype.element_ty), inside)
