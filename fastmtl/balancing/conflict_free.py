"""The direction at the same angle to all tasks' gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl.balancing.gramian_method import GramianMethod
from fastmtl.balancing.solvers import UnitGramian, symmetric_eigen


class ConFIG(GramianMethod):
    """Conflict-free inverse gradients (Liu et al. 2024, "ConFIG: towards conflict-free training of
    physics informed neural networks", equation 2): the direction whose cosine with every gradient
    is the same, as long as the gradients' projections onto it together,

        d = (sum_j <g_j, v>) v,    v = U^+ 1 / ||U^+ 1||,    rows u_j = g_j / ||g_j|| of U

    U^+ 1 = U^T K^+ 1 with K_ij = `<u_i, u_j>`, so the Gramian is all it takes. What the weights sum
    to varies, and they can be negative; absent tasks do not count. Two opposite gradients have
    d = 0.

    Args:
        model: as in GramianBalancer.
        place: `balance_at` and `scope`, as in GramianBalancer.

    Raises:
        TypeError or ValueError: for a model without a SharedLinear or TaskFork.

    Examples:
        >>> from fastmtl.nn import TaskFork
        >>> fork = TaskFork(num_tasks=2)
        >>> balancer = ConFIG(fork)
        >>> z = torch.zeros(2, requires_grad=True)
        >>> first, second = fork.views(z)
        >>> total = balancer.backward(torch.stack([first[0], 3 * second[1]]))
        >>> z.grad
        tensor([2., 2.])
    """

    def _solve(self, tasks: UnitGramian) -> Tensor:
        values, vectors = symmetric_eigen(tasks.cosines)
        kept = values > tasks.rounding * values.max()
        inverse = torch.where(kept, 1 / torch.where(kept, values, 1), 0)
        solution = vectors @ (inverse * (vectors.T @ tasks.present.double()))
        gains = tasks.cosines @ solution
        square = solution @ gains
        length = (tasks.norms @ gains) / torch.where(square > 0, square, 1)
        return tasks.inverse_norms * solution * length
