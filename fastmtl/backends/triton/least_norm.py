"""The weights of least norm in Triton: one program, so that all iterations are one launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastmtl.backends.reference import least_norm as reference
from fastmtl.backends.triton.formulas import device_of

_MOST_TASKS = 128  # whose (T, T) fits the registers of a program


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
    tiny = torch.finfo(gramian.dtype).tiny
    with device_of(gramian):
        _least_norm[1,](gramian, out, tasks, iterations, tiny, block, num_warps=block // 8)
    return out


@triton.jit
def _least_norm(
    gramian,  # (T, T)
    out,  # (T,)
    tasks,
    iterations,
    TINY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    task = tl.arange(0, BLOCK)
    inside = task < tasks
    pair = task[:, None] * BLOCK + task[None, :]  # [b, a]
    place = gramian + task[:, None] * tasks + task[None, :]
    products = tl.load(place, inside[:, None] & inside[None, :], 0.0)
    squares = tl.load(gramian + task * (tasks + 1), inside, 0.0)
    # 0 for what is finite, NaN for the rest.
    poison = tl.sum(tl.sum(products - products, 1), 0)
    largest = tl.maximum(tl.max(squares, 0), TINY)
    products = products / largest
    squares = squares / largest
    present = squares > 0
    weights = tl.where(present, 1.0 / tl.sum(present.to(squares.dtype), 0), 0.0)
    distances = tl.maximum(squares[:, None] + squares[None, :] - 2 * products, 0.0)
    # Without a distance the gradients are equal, and there is nothing to gain.
    apart = (distances > 0) & present[:, None]
    distances = tl.where(apart, distances, 1.0)
    for _ in range(iterations):
        slope = tl.sum(products * weights[None, :], 1)
        drop = tl.maximum(slope[None, :] - slope[:, None], 0.0)
        length = tl.minimum(tl.where(apart, drop / distances, 0.0), weights[None, :])
        gain = length * (drop - length * distances / 2)
        most = tl.max(tl.max(gain, 1), 0)
        best = tl.min(tl.min(tl.where(gain == most, pair, BLOCK * BLOCK), 1), 0)
        moved = tl.sum(tl.sum(tl.where(pair == best, length, 0.0), 1), 0)
        weights += tl.where(task == best // BLOCK, moved, 0.0)
        weights -= tl.where(task == best % BLOCK, moved, 0.0)
    tl.store(out + task, weights + poison, inside)
