"""The mean of the tasks' gradients without what conflicts with any of them."""

from __future__ import annotations

from torch import Tensor

from fastmtl.balancing.gramian_method import GramianMethod
from fastmtl.balancing.solvers import UnitGramian, dual_cone_weights


class DualProj(GramianMethod):
    """Projection onto the dual cone (Lopez-Paz and Ranzato 2017, "Gradient episodic memory for
    continual learning", equation 11; for tasks, Quinton and Rey 2024): of all directions along
    which no loss rises, that closest to the mean gradient,

        argmin_d ||d - 1/P sum_j g_j||^2,    <g_j, d> >= 0 for all j

    so c = argmin over c >= 1/P of c^T S c. The weights sum to at least 1 and to 1 where no gradient
    conflicts with the mean; absent tasks do not count.

    Args:
        model: as in GramianBalancer.
        place: `balance_at` and `scope`, as in GramianBalancer.

    Raises:
        TypeError or ValueError: for a model without a SharedLinear or TaskFork.

    Examples:
        >>> import torch
        >>> from fastmtl.nn import TaskFork
        >>> fork = TaskFork(num_tasks=2)
        >>> balancer = DualProj(fork)
        >>> z = torch.zeros(2, requires_grad=True)
        >>> first, second = fork.views(z)
        >>> total = balancer.backward(torch.stack([first[0], second[1] - 3 * second[0]]))
        >>> balancer.weights  # the mean is (-1, 1/2), its projection (0, 1/2)
        tensor([1.5000, 0.5000])
    """

    def _solve(self, tasks: UnitGramian) -> Tensor:
        mean = (tasks.shares * tasks.norms).unsqueeze(0)
        return tasks.shares + tasks.inverse_norms * dual_cone_weights(tasks, mean)[0]
