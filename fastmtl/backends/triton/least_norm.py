"""The weights of least norm in Triton: one program, so that all iterations are one launch.

fastmtl/backends/reference/least_norm.py has the mathematics, and the same names.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fastmtl.backends.reference import least_norm as reference
from fastmtl.backends.triton.formulas import device_of

_MOST_TASKS = 128  # whose inverse (T, T) fits the registers of a program


def least_norm_weights_forward(
    gramian: Tensor,  # (T, T)
    iterations: int,
) -> Tensor:
    tasks = len(gramian)
    if tasks > _MOST_TASKS:
        return reference.least_norm_weights_forward(gramian, iterations)
    gramian = gramian.contiguous()
    out = gramian.new_empty(tasks)
    block = max(triton.next_power_of_2(tasks), 16)
    constants = reference.RIDGE[gramian.dtype], reference.TOLERANCE
    with device_of(gramian):
        _least_norm[1,](gramian, out, tasks, iterations, *constants, block, num_warps=block // 8)
    return out


@triton.jit
def _least_norm(
    gramian,  # (T, T)
    out,  # (T,)
    tasks,
    iterations,
    RIDGE: tl.constexpr,
    TOLERANCE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    task = tl.arange(0, BLOCK)
    inside = task < tasks
    place = gramian + task[:, None] * tasks + task[None, :]
    within = inside[:, None] & inside[None, :]
    products = tl.load(place, within, 0.0).to(tl.float64)
    squares = tl.load(gramian + task * (tasks + 1), inside, 0.0).to(tl.float64)
    # 0 for what is finite, NaN for the rest.
    poison = tl.sum(tl.sum(products - products, 1), 0)
    infinity = float("inf")
    present = squares > 0
    shortness = tl.where(present, 1 / tl.sqrt(tl.where(present, squares, 1.0)), 0.0)
    square = tl.min(tl.where(present, squares, infinity), 0)
    running = square < infinity
    square = tl.where(running, square, 0.0)
    d = tl.sqrt(square) * shortness

    shortest = tl.min(tl.where(present & (squares == square), task, BLOCK), 0)
    free = task == shortest
    v = tl.where(free, 1 / (2 * d * d + RIDGE), 0.0)  # of float64, as constants are not
    inverse = tl.where(task[:, None] == task[None, :], v[None, :], 0.0)
    slope = _times(place, within, square, shortness, RIDGE, v) - d
    first = running
    i = tl.full((), 0, tl.int64)
    while running & (i < iterations):
        i += 1
        rest = tl.max(tl.where(free, tl.abs(slope), 0.0), 0)
        others = tl.where(present & (free == 0), slope, infinity)
        lowest = tl.min(others, 0)
        # Not before the free tasks are at their minimum, as far as that matters.
        least = -tl.maximum(100 * rest, TOLERANCE)
        enters = lowest < least
        index = tl.min(tl.where(others == lowest, task, BLOCK), 0)
        entering = (task == index) & (others < least)
        unit = tl.where(entering, 1.0, 0.0).to(tl.float64)
        column = _times(place, within, square, shortness, RIDGE, unit)
        border = tl.sum(inverse * column[None, :], 1) - unit
        # Rounding errors of the Gramian can make it less than the ridge.
        pivot = tl.maximum(-tl.sum(border * column, 0), RIDGE / 2)
        border = tl.where(enters, border, 0.0)
        inverse += border[:, None] * border[None, :] / pivot
        free = free | entering

        again = (enters == 0) & (rest <= TOLERANCE)
        running = running & (first | (again == 0))
        slope -= tl.where(again, RIDGE * v, 0.0)
        first = first & (again == 0)

        direction = -tl.sum(inverse * slope[None, :], 1)
        change = _times(place, within, square, shortness, RIDGE, direction)
        fall = -tl.sum(slope * direction, 0)
        curvature = tl.sum(direction * change, 0)
        best = tl.where(curvature > 0, fall / tl.where(curvature > 0, curvature, 1.0), infinity)
        falls = free & (direction < 0)
        bounds = tl.where(falls, -v / tl.where(falls, direction, 1.0), infinity)
        bound = tl.min(bounds, 0)
        length = tl.minimum(best, bound)
        running = running & (fall > 0) & (length < infinity)
        length = tl.where(running, length, 0.0)
        v = tl.maximum(v + length * direction, 0.0)
        slope += length * change

        index = tl.min(tl.where(bounds == bound, task, BLOCK), 0)
        leaving = (task == index) & (bounds <= tl.where(running, best, -1.0))
        row = tl.sum(tl.where(leaving[:, None], inverse, 0.0), 0)
        own = tl.sum(tl.where(leaving, row, 0.0), 0)
        own = tl.where(own > 0, own, 1.0)
        goes = leaving[:, None] | leaving[None, :]
        inverse = tl.where(goes, 0.0, inverse - row[:, None] * row[None, :] / own)
        v = tl.where(leaving, 0.0, v)
        free = free & (leaving == 0)
        # What a task would gain that enters and leaves at once is below rounding.
        running = running & (tl.max((entering & leaving).to(tl.int32), 0) == 0)
    weights = shortness * v
    total = tl.sum(weights, 0)
    weights = weights / tl.where(total > 0, total, 1.0) + poison
    tl.store(out + task, weights.to(out.dtype.element_ty), inside)


@triton.jit
def _times(place, within, square, shortness, RIDGE: tl.constexpr, x):
    """H x, with the Gramian from memory: the registers are full."""
    scaled = shortness * x
    products = tl.load(place, within, 0.0).to(tl.float64) + square
    return shortness * tl.sum(products * scaled[None, :], 1) + RIDGE * x
