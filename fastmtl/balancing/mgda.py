"""The combination of the tasks' gradients that has the smallest norm."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastmtl.balancing.gramian import GramianBalancer
from fastmtl.nn._checks import need_size


class MGDA(GramianBalancer):
    """Multiple-gradient descent (Sener and Koltun 2018, equation 3): the point of least norm in the
    convex hull of the tasks' gradients,

        min_c ||sum_j c_j dL_j/dW||^2 = min_c c^T S c,    c_j >= 0, sum_j c_j = 1

    Along it no task's loss rises, to first order. At a SharedLinear the gradients are those of its
    weight; at a TaskFork those of the representation, which is MGDA-UB (section 3.3, equation 7).
    Each task's own network keeps the gradient of its own loss. Solved on the device in a fixed
    number of iterations, from the Gramian S of the one backward pass.

    iterations: steps of the solver, each of which moves weight between the two tasks where that
        gains most. One is exact for two tasks; the error falls geometrically, as that of pairwise
        Frank-Wolfe does (Lacoste-Julien and Jaggi 2015, theorem 1), more slowly the more tasks.

    `model` and the treatment of absent tasks are those of GramianBalancer.

    Example:
        >>> from fastmtl.nn import TaskFork
        >>> fork = TaskFork(num_tasks=2)
        >>> balancer = MGDA(fork)
        >>> z = torch.zeros(2, requires_grad=True)
        >>> first, second = fork.views(z)
        >>> total = balancer.backward(torch.stack([first[0], 2 * second[1]]))
        >>> balancer.weights, z.grad
        (tensor([0.8000, 0.2000]), tensor([0.8000, 0.4000]))
    """

    def __init__(self, model: Any, *, iterations: int = 100, where: str | None = None) -> None:
        need_size("iterations", iterations)
        super().__init__(model, partial(_least_norm, iterations=iterations), where=where)


def _least_norm(gramian: Tensor, iterations: int) -> Tensor:
    """argmin over the simplex of c^T S c, (T,), without the tasks whose gradient is 0.

    With f = c^T S c / 2 and slope S c, moving the weight t <= c_a from task a to task b gains

        t (slope_a - slope_b) - t^2 D_ba / 2,    D_ba = ||g_a - g_b||^2,

    most at t = (slope_a - slope_b) / D_ba. Each iteration takes the best of all pairs.
    """
    present = gramian.diagonal() > 0
    # The weights do not depend on the scale of S, but products of its entries could overflow.
    gramian = gramian / gramian.diagonal().max().clamp(min=torch.finfo(gramian.dtype).tiny)
    squares = gramian.diagonal()
    distances = (squares.unsqueeze(1) + squares - 2 * gramian).clamp(min=0)
    weights = present.to(gramian.dtype) / present.sum().clamp(min=1)
    tasks = torch.arange(len(weights), device=weights.device)
    for _ in range(iterations):
        slope = gramian @ weights
        drop = slope - slope.unsqueeze(1)  # [b, a]
        # Equal gradients are 0 / 0, with nothing to gain.
        length = (drop / distances).nan_to_num(0.0).clamp(min=0).minimum(weights)
        length = torch.where(present.unsqueeze(1), length, 0)
        gain = length * (drop - length * distances / 2)
        pair = gain.argmax(keepdim=True).view(1)
        b, a = pair.div(len(weights), rounding_mode="floor"), pair % len(weights)
        moved = length.view(-1)[pair]
        weights = weights + torch.where(tasks == b, moved, 0) - torch.where(tasks == a, moved, 0)
    return weights
