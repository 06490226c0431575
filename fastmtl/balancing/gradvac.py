"""The sum of the tasks' gradients, each turned until it is as similar to the others as usual."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from fastmtl import ops
from fastmtl._checks import need_number
from fastmtl.balancing.gramian import Place
from fastmtl.balancing.gramian_method import GramianMethod
from fastmtl.balancing.solvers import UnitGramian


class GradVac(GramianMethod):
    """Gradient vaccine (Wang et al. 2021, "Gradient vaccine: investigating and improving multi-task
    optimization in massively multilingual models", algorithm 1 and equation 3): every gradient
    visits all others in random order, and where its cosine with one is below the running mean of
    that cosine it is turned until it has it,

        phi = cos(g'_i, g_j);    where phi < phihat_ij:
        g'_i <- g'_i + ||g'_i|| (phihat sqrt(1 - phi^2) - phi sqrt(1 - phihat^2))
                       / (||g_j|| sqrt(1 - phihat^2)) g_j
        phihat_ij <- (1 - beta) phihat_ij + beta phi,    d = sum_i g'_i

    The weights are at least 1, but where phihat is negative; absent tasks do not count, and their
    phihat stay. `phihat` (T, T) is part of `state_dict`. The orders are drawn as in PCGrad.

    Args:
        model: as in GramianBalancer.
        beta: how fast the running means follow, in (0, 1].
        place: `balance_at` and `scope`, as in GramianBalancer.

    Raises:
        TypeError or ValueError: for a model without a SharedLinear or TaskFork, or a beta out of
            range.

    Examples:
        >>> from fastmtl.nn import TaskFork
        >>> fork = TaskFork(num_tasks=2)
        >>> balancer = GradVac(fork)
        >>> z = torch.zeros(2, requires_grad=True)
        >>> first, second = fork.views(z)
        >>> total = balancer.backward(torch.stack([first[0], second[1] - second[0]]))
        >>> balancer.weights, balancer.phihat[0, 1]
        (tensor([2.0000, 1.5000]), tensor(-0.0071))
    """

    phihat: Tensor

    def __init__(self, model: Any, beta: float = 0.01, **place: Unpack[Place]) -> None:
        need_number("beta", beta, above=0.0)
        if beta > 1:
            raise ValueError(f"beta: expected a number in (0, 1], got {beta}")
        super().__init__(model, **place)
        self.beta = beta
        self.register_buffer("phihat", self.weights.new_zeros(self.num_tasks, self.num_tasks))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, beta={self.beta}"

    def _solve(self, tasks: UnitGramian) -> Tensor:
        drawn = torch.rand(self.num_tasks, self.num_tasks, device=tasks.norms.device)
        weights, phihat = ops.gradvac_weights(
            tasks.products,
            self._same_on_ranks(drawn).argsort(1),
            self.phihat.double(),
            self.beta,
            rounding=tasks.rounding,
        )
        self.phihat.copy_(phihat)
        return weights
