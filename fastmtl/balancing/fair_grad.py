"""Task weights that make the tasks' gains fair."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from typing_extensions import Unpack

from fastmtl._checks import need_number
from fastmtl.balancing.gramian import Place
from fastmtl.balancing.gramian_method import GramianMethod
from fastmtl.balancing.solvers import UnitGramian, bargain


class FairGrad(GramianMethod):
    """FairGrad (Ban and Ji 2024, "Fair resource allocation in multi-task learning", equation 4):
    the direction in a ball whose gains <g_j, d> have the largest alpha-fair utility,

        S c = c^(-1/alpha),    entry by entry, c > 0

    `alpha` near 0 maximises the sum of the gains, 1 is the direction of Nash-MTL, and a large one
    approaches the largest least gain, as MGDA does. By the equation, and as in the authors' code,
    the length of the step hardly follows the losses: with alpha 1 it is sqrt(P). Choose the
    learning rate accordingly, or Adam, and rather bfloat16 than float16, where weights beyond 65504
    overflow. Absent tasks do not count. Where a convex combination of the gradients is 0 there is
    no such c: the weights are then large and the combination is close to 0.

    Args:
        model: as in GramianBalancer.
        alpha: the kind of fairness.
        place: `balance_at` and `scope`, as in GramianBalancer.

    Raises:
        TypeError or ValueError: for a model without a SharedLinear or TaskFork, or an alpha that is
            no number above 0.

    Examples:
        >>> import torch
        >>> from fastmtl.nn import TaskFork
        >>> fork = TaskFork(num_tasks=2)
        >>> balancer = FairGrad(fork, alpha=1.0)
        >>> z = torch.zeros(2, requires_grad=True)
        >>> first, second = fork.views(z)
        >>> total = balancer.backward(torch.stack([2 * first[0], 4 * second[1]]))
        >>> balancer.weights
        tensor([0.5000, 0.2500])
    """

    def __init__(self, model: Any, alpha: float = 1.0, **place: Unpack[Place]) -> None:
        need_number("alpha", alpha, above=0.0)
        super().__init__(model, **place)
        self.alpha = alpha

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, alpha={self.alpha}"

    def _solve(self, tasks: UnitGramian) -> Tensor:
        return bargain(tasks, 1 / self.alpha)
