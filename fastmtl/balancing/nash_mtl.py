"""Task weights at which no task would gain from a deal among the others."""

from __future__ import annotations

from torch import Tensor

from fastmtl.balancing.gramian_method import GramianMethod
from fastmtl.balancing.solvers import UnitGramian, bargain


class NashMTL(GramianMethod):
    """Nash-MTL (Navon et al. 2022, "Multi-task learning as a bargaining game", claim 3.1): the step
    of the Nash bargaining solution, the c > 0 with

        S c = ||S||_F / c,    entry by entry

    As in the authors' code, S is divided by its Frobenius norm, so that c is of size 1 whatever the
    scale of the losses: by the equation alone the step would have length sqrt(P) always. With d the
    combination, c_j <g_j, d> is the same for all, and scaling a loss changes nothing but the length
    of d. The solution itself, where the authors' code approaches it by a sequence of convex
    problems; the bound of 1 that it puts on the norm of the gradient is left to `clip_grad_norm_`.
    What the weights sum to varies; absent tasks do not count. Where a convex combination of the
    gradients is 0 there is no such c: the weights are then large, the combination close to 0.

    Args:
        model: as in GramianBalancer.
        place: `balance_at` and `scope`, as in GramianBalancer.

    Raises:
        TypeError or ValueError: for a model without a SharedLinear or TaskFork.

    Examples:
        >>> import torch
        >>> from fastmtl.nn import TaskFork
        >>> fork = TaskFork(num_tasks=2)
        >>> balancer = NashMTL(fork)
        >>> z = torch.zeros(2, requires_grad=True)
        >>> first, second = fork.views(z)
        >>> total = balancer.backward(torch.stack([3 * first[0], 4 * second[1]]))
        >>> balancer.weights[0] / balancer.weights[1]
        tensor(1.3333)
    """

    def _solve(self, tasks: UnitGramian) -> Tensor:
        frobenius = tasks.products.square().sum().sqrt()
        return bargain(tasks, 1.0) * frobenius.sqrt()
