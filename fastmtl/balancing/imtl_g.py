"""The combination of the tasks' gradients with the same part along each of them."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl.balancing.gramian_method import GramianMethod
from fastmtl.balancing.solvers import UnitGramian, least_solution


class IMTLG(GramianMethod):
    """Impartial multi-task learning, its gradients (Liu et al. 2021, "Towards impartial multi-task
    learning", equation 6): the combination whose projections onto the tasks' gradients are equal,

        d = sum_j c_j g_j,    <d, u_j> the same for all j,    sum_j c_j = 1,    u_j = g_j / ||g_j||

    With K_ij = `<u_i, u_j>` that is c_j = z_j / ||g_j||, K z = 1, scaled to sum 1. Weights can be
    negative, and where the sum before scaling is, which obtuse gradients of very different norms
    can bring about, the step along -d makes all losses rise: so the equation has it. Of dependent
    gradients' weights, those that spread most evenly are taken. Absent tasks do not count.

    Args:
        model: as in GramianBalancer.
        place: `balance_at` and `scope`, as in GramianBalancer.

    Raises:
        TypeError or ValueError: for a model without a SharedLinear or TaskFork.

    Examples:
        >>> from fastmtl.nn import TaskFork
        >>> fork = TaskFork(num_tasks=2)
        >>> balancer = IMTLG(fork)
        >>> z = torch.zeros(2, requires_grad=True)
        >>> first, second = fork.views(z)
        >>> total = balancer.backward(torch.stack([first[0], 4 * second[1]]))
        >>> balancer.weights, z.grad
        (tensor([0.8000, 0.2000]), tensor([0.8000, 0.8000]))
    """

    def _solve(self, tasks: UnitGramian) -> Tensor:
        return impartial_weights(tasks)


def impartial_weights(tasks: UnitGramian) -> Tensor:
    """c (T,); 0 where no scaling makes it sum to 1."""
    weights = tasks.inverse_norms * least_solution(tasks, tasks.present.double())
    total = weights.sum()
    # Rounding errors are all that is left of a sum that is 0.
    sums = total.abs() > 1e-13 * weights.abs().sum()
    return torch.where(sums, weights / torch.where(sums, total, 1), 0)
