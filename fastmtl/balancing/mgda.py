"""The combination of the tasks' gradients that has the smallest norm."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from fastmtl._checks import need_size
from fastmtl._deprecation import takes_old_arguments
from fastmtl.balancing.gramian import GramianBalancer, Place
from fastmtl.ops import least_norm_weights


class MGDA(GramianBalancer):
    """Multiple-gradient descent (Sener and Koltun 2018, equation 3): the point of least norm in the
    convex hull of the tasks' gradients,

        min_c ||sum_j c_j dL_j/dW||^2 = min_c c^T S c,    c_j >= 0, sum_j c_j = 1

    Along it no task's loss rises, to first order. At a SharedLinear the gradients are those of its
    weight; at a TaskFork those of the representation, which is MGDA-UB (section 3.3, equation 7).
    Each task's own network keeps the gradient of its own loss. Solved on the device by
    `fastmtl.ops.least_norm_weights`, from the Gramian S of the one backward pass.

    The treatment of absent tasks is that of GramianBalancer.

    Args:
        model: as in GramianBalancer.
        iterations: of the solver at most; by default more than it takes.
        normalize: find c for the gradients divided by their norms, as the authors' code can, and
            combine the gradients as they are with it. Otherwise the tasks whose gradients are
            small, those of rare labels for instance, get nearly all the weight, and the shared part
            hardly learns the others. That no loss rises is then promised for
            sum_j c_j g_j / ||g_j|| alone.
        place: `balance_at` and `scope`, as in GramianBalancer.

    Raises:
        TypeError or ValueError: for a model without a SharedLinear or TaskFork, or `iterations`
            that are no int of at least 1.

    Examples:
        >>> import torch
        >>> from fastmtl.nn import TaskFork
        >>> fork = TaskFork(num_tasks=2)
        >>> balancer = MGDA(fork)
        >>> z = torch.zeros(2, requires_grad=True)
        >>> first, second = fork.views(z)
        >>> total = balancer.backward(torch.stack([first[0], 2 * second[1]]))
        >>> balancer.weights, z.grad
        (tensor([0.8000, 0.2000]), tensor([0.8000, 0.4000]))
    """

    @takes_old_arguments(where="balance_at")
    def __init__(
        self,
        model: Any,
        *,
        iterations: int | None = None,
        normalize: bool = False,
        **place: Unpack[Place],
    ) -> None:
        if iterations is not None:
            need_size("iterations", iterations)
        solve = _least_norm_of_normalized if normalize else least_norm_weights
        super().__init__(model, partial(solve, iterations=iterations), **place)


def _least_norm_of_normalized(gramian: Tensor, iterations: int | None) -> Tensor:
    norms = gramian.diagonal().sqrt()
    inverse = torch.where(norms > 0, 1 / norms, 0)
    return least_norm_weights(inverse * gramian * inverse.unsqueeze(1), iterations)
