"""Task weights learned such that all weighted losses become equal."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastmtl.balancing.base import Balancer
from fastmtl.balancing.learned import learned_total


class IMTLL(Balancer):
    """Impartial multi-task learning, its losses (Liu et al. 2021, "Towards impartial multi-task
    learning", equation 8):

        total = sum_j exp(s_j) L_j - s_j,    w_j = exp(s_j)

    which is least where all w_j L_j are 1. The scales s (T,) are parameters that start at 0 and get
    their gradient from the same backward pass: give them to the optimizer,
    `[*model.parameters(), *balancer.parameters()]`. The weights need not sum to T. A loss of
    exactly 0 counts as absent; an absent task's s_j has gradient 0, and all have on a batch with a
    loss that is not finite. `IMTL` joins it with `IMTLG`.

    Args:
        num_tasks: T.

    Raises:
        TypeError or ValueError: for a `num_tasks` that is no int of at least 1.

    Examples:
        >>> balancer = IMTLL(num_tasks=2)
        >>> losses = torch.tensor([1.0, 3.0], requires_grad=True)
        >>> balancer.backward(losses)
        tensor(4.)
        >>> balancer.log_scales.grad
        tensor([0., 2.])
    """

    def __init__(self, num_tasks: int) -> None:
        super().__init__(num_tasks)
        self.log_scales = nn.Parameter(torch.zeros(num_tasks))

    def _total(self, losses: Tensor, values: Tensor, present: Tensor | None) -> Tensor:
        factors = self.log_scales.exp()
        with torch.no_grad():
            self.weights.copy_(factors)
        return learned_total(factors, -self.log_scales, losses, values, present)
