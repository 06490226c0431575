"""Task weights learned as the uncertainty of each task."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastmtl.balancing.base import Balancer


class UncertaintyWeighting(Balancer):
    """Homoscedastic uncertainty (Kendall et al. 2018, equation 10, the classification term):

        total = sum_j exp(-s_j) L_j + s_j / 2,    s_j = log sigma_j^2,    w_j = exp(-s_j)

    The log-variances s (T,) are parameters that start at 0 and get their gradient from the same
    backward pass: give them to the optimizer, `[*model.parameters(), *balancer.parameters()]`. The
    weights need not sum to T. Halve the loss of a regression task, which makes it the paper's
    1 / (2 sigma^2) term. A loss of exactly 0 counts as absent; an absent task's s_j has gradient 0,
    and all have on a batch with a loss that is not finite.

    Args:
        num_tasks: T.

    Raises:
        TypeError or ValueError: for a `num_tasks` that is no int of at least 1.

    Example:
        >>> balancer = UncertaintyWeighting(num_tasks=2)
        >>> losses = torch.tensor([1.0, 3.0], requires_grad=True)
        >>> balancer.backward(losses)
        tensor(4.)
        >>> balancer.log_variances.grad
        tensor([-0.5000, -2.5000])
    """

    def __init__(self, num_tasks: int) -> None:
        super().__init__(num_tasks)
        self.log_variances = nn.Parameter(torch.zeros(num_tasks))

    def _total(self, losses: Tensor, values: Tensor, present: Tensor | None) -> Tensor:
        if present is None:
            present = values != 0
        precision = torch.exp(-self.log_variances)
        with torch.no_grad():
            self.weights.copy_(precision)
        # s learns from the losses of all ranks, and no rank's differs: losses and values are equal
        # but for their gradients and, under DDP, for what each rank contributes.
        learned = present & values.isfinite().all()
        values = torch.where(learned, values, 0)
        terms = self.weights * losses + (precision - self.weights) * values
        penalty = torch.where(learned, self.log_variances / 2, 0)
        return (terms + penalty).sum().to(losses.dtype)
