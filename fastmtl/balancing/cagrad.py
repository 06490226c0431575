"""The direction near the mean gradient that is best for the task it is worst for."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from fastmtl._checks import need_number
from fastmtl.balancing.gramian import Place
from fastmtl.balancing.gramian_method import GramianMethod
from fastmtl.balancing.solvers import UnitGramian, is_settled
from fastmtl.ops import least_norm_weights

_ITERATIONS = 50
_TOLERANCE = 1e-12
# ||g_w|| of less than this part of sum_j w_j ||g_j|| is taken for 0, which has no direction.
_LEAST = 1e-6


class CAGrad(GramianMethod):
    """Conflict-averse gradient descent (Liu et al. 2021, algorithm 1): with the mean gradient g_0,

        d = argmax_d min_j <g_j, d>,    ||d - g_0|| <= c ||g_0||
          = g_0 + c ||g_0|| g_w / ||g_w||,    g_w = sum_j w_j g_j
        w = argmin <g_w, g_0> + c ||g_0|| ||g_w||,    w_j >= 0, sum_j w_j = 1

    The weights are 1/P + c ||g_0|| w_j / ||g_w||, with P tasks present in the batch, and sum to at
    least 1. Not divided by 1 + c^2, which the authors' code can do.

    Where w is known to be the minimum, w is also that of ||g_w + k g_0|| for k = ||g_w|| / (c
    ||g_0||): the point of least norm in a hull, which `fastmtl.ops.least_norm_weights` finds, for
    the one k that agrees with itself.

    Args:
        model: as in GramianBalancer.
        c: how far d may be from the mean gradient, in [0, 1): 0 is the mean gradient.
        place: `balance_at` and `scope`, as in GramianBalancer.

    Raises:
        TypeError or ValueError: for a model without a SharedLinear or TaskFork, or a c out of
            range.

    Examples:
        >>> from fastmtl.nn import TaskFork
        >>> fork = TaskFork(num_tasks=2)
        >>> balancer = CAGrad(fork, c=0.5)
        >>> z = torch.zeros(2, requires_grad=True)
        >>> first, second = fork.views(z)
        >>> total = balancer.backward(torch.stack([4 * first[0], 3 * second[1]]))
        >>> z.grad  # (2, 1.5) is the mean
        tensor([2.0614, 2.7485])
    """

    def __init__(self, model: Any, c: float = 0.5, **place: Unpack[Place]) -> None:
        need_number("c", c)
        if c >= 1:
            raise ValueError(f"c: expected a number in [0, 1), got {c}")
        super().__init__(model, **place)
        self.c = c

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, c={self.c}"

    def _solve(self, tasks: UnitGramian) -> Tensor:
        scale = tasks.norms.max()
        products = tasks.products / torch.where(scale > 0, scale, 1) ** 2
        with_mean = products @ tasks.shares
        square = (with_mean @ tasks.shares).clamp(min=0)
        radius = self.c * square.sqrt()
        moves = radius > tasks.rounding
        added = _averse_weights(tasks, products, with_mean, square, torch.where(moves, radius, 1))
        return tasks.shares + torch.where(moves, added, 0)


def _averse_weights(
    tasks: UnitGramian, products: Tensor, with_mean: Tensor, square: Tensor, radius: Tensor
) -> Tensor:
    """w / k (T,), by the secant method in logarithms between two bounds (Illinois)."""
    pairs = tasks.present & tasks.present.unsqueeze(1)
    sums = with_mean + with_mean.unsqueeze(1)
    norms = products.diagonal().sqrt()
    least = max(_LEAST, math.sqrt(tasks.rounding))

    def at(log_k: Tensor) -> tuple[Tensor, Tensor]:
        k = log_k.exp()
        weights = least_norm_weights(torch.where(pairs, products + k * (sums + k * square), 0))
        length = (weights @ products @ weights).clamp(min=0).sqrt()
        length = torch.maximum(length, least * (weights @ norms))
        return weights / k, torch.log(length / (radius * k))

    high = -radius.log()
    low = torch.where(tasks.present, norms, 1).min().log() + math.log(least) - radius.log()
    (added, high_error), (_, low_error) = at(high), at(low)
    moved = torch.zeros_like(high)
    for _ in range(_ITERATIONS):
        share = high_error / (high_error - low_error)
        middle = high + share.nan_to_num(0.5).clamp(0, 1) * (low - high)
        added, error = at(middle)
        if is_settled((error.abs() < _TOLERANCE) | (high - low < _TOLERANCE)):
            break
        above = error < 0
        high_error = torch.where(above, error, torch.where(moved < 0, high_error / 2, high_error))
        low_error = torch.where(above, torch.where(moved > 0, low_error / 2, low_error), error)
        high, low = torch.where(above, middle, high), torch.where(above, low, middle)
        moved = torch.where(above, 1.0, -1.0)
    return added
