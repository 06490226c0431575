"""The mean of the tasks' gradients, each without what conflicts with the others."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl.balancing.gramian_method import GramianMethod
from fastmtl.balancing.solvers import UnitGramian, dual_cone_weights


class UPGrad(GramianMethod):
    """Unconflicting projection of gradients (Quinton and Rey 2024, "Jacobian descent for
    multi-objective optimization", equation 5): the mean of the gradients, each projected onto the
    dual cone of all, where no loss rises,

        1/P sum_i argmin_d ||d - g_i||^2,    <g_j, d> >= 0 for all j

    so c = 1/P sum_i v_i with v_i = argmin of v^T S v over v >= e_i. The weights sum to at least 1
    and to 1 where nothing conflicts; absent tasks do not count. As the equation stands, without the
    ridge of 1e-4 of its trace that the authors' package adds to S.

    Args:
        model: as in GramianBalancer.
        place: `balance_at` and `scope`, as in GramianBalancer.

    Raises:
        TypeError or ValueError: for a model without a SharedLinear or TaskFork.

    Examples:
        >>> from fastmtl.nn import TaskFork
        >>> fork = TaskFork(num_tasks=2)
        >>> balancer = UPGrad(fork)
        >>> z = torch.zeros(2, requires_grad=True)
        >>> first, second = fork.views(z)
        >>> total = balancer.backward(torch.stack([first[0], second[1] - second[0]]))
        >>> z.grad  # the mean of (1/2, 1/2) and (0, 1)
        tensor([0.2500, 0.7500])
    """

    def _solve(self, tasks: UnitGramian) -> Tensor:
        # In directions, where row i of the problem is ||g_i|| times that of u_i.
        added = dual_cone_weights(tasks, torch.diag(tasks.present.double()))
        return tasks.shares + tasks.inverse_norms * ((tasks.shares * tasks.norms) @ added)
