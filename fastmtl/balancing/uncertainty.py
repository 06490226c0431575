"""Task weights learned as the uncertainty of each task."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastmtl._checks import need_flag
from fastmtl.balancing.base import Balancer
from fastmtl.balancing.learned import learned_total


class UncertaintyWeighting(Balancer):
    """Homoscedastic uncertainty (Kendall et al. 2018, equations 7 and 10): for classification and
    for regression tasks,

        total = sum_j exp(-s_j) L_j + s_j / 2,        w_j = exp(-s_j),    s_j = log sigma_j^2
        total = sum_j exp(-s_j) L_j / 2 + s_j / 2,    w_j = exp(-s_j) / 2

    The log-variances s (T,) are parameters that start at 0 and get their gradient from the same
    backward pass: give them to the optimizer, `[*model.parameters(), *balancer.parameters()]`. The
    weights need not sum to T. A loss of exactly 0 counts as absent; an absent task's s_j has
    gradient 0, and all have on a batch with a loss that is not finite.

    Args:
        num_tasks: T.
        regression: for each task whether it is one of regression, with a squared error for its
            loss; by default none is.

    Raises:
        TypeError or ValueError: for a `num_tasks` that is no int of at least 1, or a `regression`
            that is not T values True or False.

    Examples:
        >>> balancer = UncertaintyWeighting(num_tasks=2)
        >>> losses = torch.tensor([1.0, 3.0], requires_grad=True)
        >>> balancer.backward(losses)
        tensor(4.)
        >>> balancer.log_variances.grad
        tensor([-0.5000, -2.5000])
    """

    shares: Tensor

    def __init__(self, num_tasks: int, *, regression: Sequence[bool] | None = None) -> None:
        super().__init__(num_tasks)
        regression = [False] * num_tasks if regression is None else regression
        if len(regression) != num_tasks:
            raise ValueError(
                f"regression: expected {num_tasks} values, one per task, got {len(regression)}"
            )
        shares = [0.5 if need_flag("regression", each) else 1.0 for each in regression]
        self.register_buffer("shares", torch.tensor(shares), persistent=False)
        self.log_variances = nn.Parameter(torch.zeros(num_tasks))

    def _total(self, losses: Tensor, values: Tensor, present: Tensor | None) -> Tensor:
        factors = self.shares * torch.exp(-self.log_variances)
        with torch.no_grad():
            self.weights.copy_(factors)
        return learned_total(factors, self.log_variances / 2, losses, values, present)
