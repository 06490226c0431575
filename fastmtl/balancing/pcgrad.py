"""The sum of the tasks' gradients, each projected off those that it conflicts with."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl import ops
from fastmtl.balancing.gramian_method import GramianMethod
from fastmtl.balancing.solvers import UnitGramian


class PCGrad(GramianMethod):
    """Projecting conflicting gradients (Yu et al. 2020, "Gradient surgery for multi-task learning",
    algorithm 1): every gradient visits all others in random order, and where it has a negative
    product with one, that part is taken out of it,

        g'_i <- g'_i - <g'_i, g_j> / ||g_j||^2 g_j  where <g'_i, g_j> < 0,    d = sum_i g'_i

    The weights are at least 1, and 1 where nothing conflicts; absent tasks do not count. The orders
    are drawn anew in every step, `torch.rand(T, T).argsort(1)` from PyTorch's generator of the
    device: a seed fixes those of a run, and its state is not part of `state_dict`. Ranks take the
    draw of the first.

    Args:
        model: as in GramianBalancer.
        place: `balance_at` and `scope`, as in GramianBalancer.

    Raises:
        TypeError or ValueError: for a model without a SharedLinear or TaskFork.

    Examples:
        >>> from fastmtl.nn import TaskFork
        >>> fork = TaskFork(num_tasks=2)
        >>> balancer = PCGrad(fork)
        >>> z = torch.zeros(2, requires_grad=True)
        >>> first, second = fork.views(z)
        >>> total = balancer.backward(torch.stack([first[0], second[1] - second[0]]))
        >>> balancer.weights, z.grad  # (1/2, 1/2) + (0, 1)
        (tensor([2.0000, 1.5000]), tensor([0.5000, 1.5000]))
    """

    def _solve(self, tasks: UnitGramian) -> Tensor:
        drawn = torch.rand(self.num_tasks, self.num_tasks, device=tasks.norms.device)
        return ops.pcgrad_weights(tasks.products, self._same_on_ranks(drawn).argsort(1))
