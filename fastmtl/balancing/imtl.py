"""Impartial multi-task learning, of losses and of gradients."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from fastmtl.balancing.gramian import Place
from fastmtl.balancing.imtl_g import IMTLG
from fastmtl.balancing.learned import learned_total


class IMTL(IMTLG):
    """Impartial multi-task learning (Liu et al. 2021, algorithm 1): IMTL-G on the gradients of the
    losses as IMTL-L scales them,

        total = sum_j exp(s_j) L_j - s_j

    Each task's own network gets the gradient of exp(s_j) L_j, the shared part sum_j c_j exp(s_j)
    dL_j with the c of `IMTLG`, in `weights`. The scales s (T,), `log_scales`, are parameters that
    start at 0: give them to the optimizer, `[*model.parameters(), *balancer.parameters()]`.

    Args:
        model: as in GramianBalancer.
        place: `balance_at` and `scope`, as in GramianBalancer.

    Raises:
        TypeError or ValueError: for a model without a SharedLinear or TaskFork.

    Examples:
        >>> from fastmtl.nn import TaskFork
        >>> fork = TaskFork(num_tasks=2)
        >>> balancer = IMTL(fork)
        >>> z = torch.ones(2, requires_grad=True)
        >>> first, second = fork.views(z)
        >>> total = balancer.backward(torch.stack([first[0], 4 * second[1]]))
        >>> balancer.weights, balancer.log_scales.grad
        (tensor([0.8000, 0.2000]), tensor([0., 3.]))
    """

    needs: ClassVar[str] = "losses, Gramian"

    def __init__(self, model: Any, **place: Unpack[Place]) -> None:
        super().__init__(model, **place)
        self.log_scales = nn.Parameter(torch.zeros_like(self.weights))

    def _total(self, losses: Tensor, values: Tensor, present: Tensor | None) -> Tensor:
        factors = self.log_scales.exp()
        return learned_total(factors, -self.log_scales, losses, values, present)
