"""Focal loss over groups of classes in Triton; a program has some rows of one group at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastmtl.backends.losses import results
from fastmtl.backends.triton.formulas import (
    device_of,
    focal,
    focal_slope,
    gamma_kind,
    halves,
    joined,
    real,
)
from fastmtl.backends.triton.reduction import MOST_PROGRAMS, finish, partial_sums

_TILE = 2048


def grouped_focal_loss_forward(
    logits: Tensor,  # (N, sum C)
    targets: Tensor,  # (N, G)
    weight: Tensor | None,  # (sum C,)
    group_sizes: Sequence[int],
    ignore_index: int,
    gamma: float,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    rows, groups = targets.shape
    elementwise = reduction == "none"
    loss, scale = results(logits, rows, groups, reduction)
    classes, tile_rows = _tile(group_sizes)
    programs = min(max(triton.cdiv(rows, tile_rows), 1), MOST_PROGRAMS)
    partial = partial_sums(logits, 0 if elementwise else programs, groups)
    with device_of(logits, targets, weight):
        _forward[programs, groups](
            *_arguments(logits, targets, weight, group_sizes, ignore_index, gamma),
            loss if elementwise else None,
            partial,
            REAL=real(logits),
            KIND=gamma_kind(gamma),
            ROWS=tile_rows,
            CLASSES=classes,
        )
        if elementwise:
            scale.fill_(1)
        else:
            finish(partial, reduction, loss, scale)
    return loss, scale


def grouped_focal_loss_backward(
    grad_loss: Tensor,  # (G,), () or (N, G), as the reduction
    scale: Tensor,  # (G,)
    logits: Tensor,  # (N, sum C)
    targets: Tensor,  # (N, G)
    weight: Tensor | None,  # (sum C,)
    group_sizes: Sequence[int],
    ignore_index: int,
    gamma: float,
    reduction: str,
) -> Tensor:
    rows, groups = targets.shape
    grad_logits = torch.empty_like(logits, memory_format=torch.contiguous_format)
    classes, tile_rows = _tile(group_sizes)
    upstream = grad_loss.expand(rows, groups)
    if rows:
        with device_of(logits, targets, weight):
            _backward[triton.cdiv(rows, tile_rows), groups](
                *_arguments(logits, targets, weight, group_sizes, ignore_index, gamma),
                upstream,
                *upstream.stride(),
                scale,
                grad_logits,
                grad_logits.shape[1],
                REAL=real(logits),
                KIND=gamma_kind(gamma),
                ROWS=tile_rows,
                CLASSES=classes,
            )
    return grad_logits


def _tile(group_sizes: Sequence[int]) -> tuple[int, int]:
    """Classes and rows of a tile."""
    classes = triton.next_power_of_2(max(group_sizes))
    return classes, max(_TILE // classes, 1)


@lru_cache(maxsize=64)
def _offsets(group_sizes: tuple[int, ...], device: torch.device) -> Tensor:
    """Where the classes of each group begin, (G + 1,), kept on the device."""
    return torch.tensor([0, *accumulate(group_sizes)], dtype=torch.int32, device=device)


def _arguments(
    logits: Tensor,
    targets: Tensor,
    weight: Tensor | None,
    group_sizes: Sequence[int],
    ignore_index: int,
    gamma: float,
) -> tuple[Tensor | int | float | None, ...]:
    """What both kernels begin with."""
    return (
        *(logits, *logits.stride()),
        *(targets, *targets.stride()),
        _offsets(tuple(group_sizes), logits.device),
        None if weight is None else weight.contiguous(),
        ignore_index,
        *targets.shape,
        *halves(gamma),
    )


@triton.jit
def _group(
    logits,
    z_row,
    z_column,
    targets,
    y_row,
    y_column,
    offsets,
    class_weight,
    ignored,
    group,
    row,
    rows,
    REAL: tl.constexpr,
    CLASSES: tl.constexpr,
):
    """Logits, inside, one-hot of the label, missing, weight, others, margin for some rows."""
    begin = tl.load(offsets + group)
    classes = tl.load(offsets + group + 1) - begin
    k = tl.arange(0, CLASSES)
    inside = (row < rows)[:, None] & (k < classes)[None, :]
    offset = row[:, None] * z_row + (begin + k).to(tl.int64)[None, :] * z_column
    z = tl.load(logits + offset, inside, 0.0).to(REAL)
    label = tl.load(targets + row * y_row + group * y_column, row < rows, ignored)
    own = inside & (k[None, :] == label[:, None])
    other = inside & (k[None, :] != label[:, None])
    largest = tl.max(tl.where(other, z, float("-inf")), 1)
    largest = tl.where(row < rows, largest, 0.0)
    terms = tl.where(other, tl.exp(tl.where(other, z - largest[:, None], 0.0)), 0.0)
    others = largest + tl.log(tl.maximum(tl.sum(terms, 1), 1.0))
    others = tl.where(tl.sum(terms, 1) == tl.sum(terms, 1), others, float("nan"))
    margin = tl.sum(tl.where(own, z, 0.0), 1) - others
    known = (label >= 0) & (label < classes)
    if class_weight is not None:
        index = begin + tl.where(known, label, 0)
        weight = tl.load(class_weight + index, known, 1.0).to(REAL)
    else:
        weight = margin * 0 + 1
    weight = tl.where(known, weight, float("nan"))
    return z, inside, own, label == ignored, weight, others, margin


@triton.jit
def _forward(
    logits,  # (N, sum C)
    z_row,
    z_column,
    targets,  # (N, G)
    y_row,
    y_column,
    offsets,  # (G + 1,)
    class_weight,  # (sum C,) or None
    ignored,
    rows,
    groups,
    gamma_high,
    gamma_low,
    loss,  # (N, G), or None: reduced
    partial,  # (programs, 2, G)
    REAL: tl.constexpr,
    KIND: tl.constexpr,
    ROWS: tl.constexpr,
    CLASSES: tl.constexpr,
):
    gamma = joined(gamma_high, gamma_low, REAL)
    group = tl.program_id(1).to(tl.int64)
    sums = tl.zeros((ROWS,), REAL)
    counts = tl.zeros((ROWS,), tl.int32)
    step = tl.num_programs(0) * ROWS
    for first in range(tl.program_id(0).to(tl.int64) * ROWS, rows, step):
        row = first + tl.arange(0, ROWS).to(tl.int64)
        _, _, _, missing, weight, _, margin = _group(
            logits,
            z_row,
            z_column,
            targets,
            y_row,
            y_column,
            offsets,
            class_weight,
            ignored,
            group,
            row,
            rows,
            REAL,
            CLASSES,
        )
        value = tl.where(missing, 0.0, focal(margin, gamma, KIND) * weight)
        if loss is not None:
            tl.store(loss + row * groups + group, value, row < rows)
        sums += value
        counts += tl.where(missing, 0, 1)
    if loss is None:
        out = partial + 2 * tl.program_id(0).to(tl.int64) * groups + group
        tl.store(out, tl.sum(sums, 0).to(tl.float64))
        tl.store(out + groups, tl.sum(counts, 0).to(tl.float64))


@triton.jit
def _backward(
    logits,  # (N, sum C)
    z_row,
    z_column,
    targets,  # (N, G)
    y_row,
    y_column,
    offsets,  # (G + 1,)
    class_weight,  # (sum C,) or None
    ignored,
    rows,
    groups,
    gamma_high,
    gamma_low,
    upstream,  # (N, G)
    g_row,
    g_column,
    scale,  # (G,)
    grad_logits,  # (N, sum C)
    width,
    REAL: tl.constexpr,
    KIND: tl.constexpr,
    ROWS: tl.constexpr,
    CLASSES: tl.constexpr,
):
    gamma = joined(gamma_high, gamma_low, REAL)
    group = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    z, inside, own, missing, weight, others, margin = _group(
        logits,
        z_row,
        z_column,
        targets,
        y_row,
        y_column,
        offsets,
        class_weight,
        ignored,
        group,
        row,
        rows,
        REAL,
        CLASSES,
    )
    coefficient = tl.load(upstream + row * g_row + group * g_column, row < rows, 0.0)
    slope = coefficient * tl.load(scale + group) * weight * focal_slope(margin, gamma, KIND)
    share = tl.where(own, 1.0, -tl.exp(tl.where(own, 0.0, z - others[:, None])))
    grad = tl.where(missing[:, None], 0.0, share * slope[:, None])
    column = tl.load(offsets + group) + tl.arange(0, CLASSES)
    out = grad_logits + row[:, None] * width + column[None, :]
    tl.store(out, grad.to(grad_logits.dtype.element_ty), inside)
