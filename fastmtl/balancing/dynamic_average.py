"""Task weights from how fast each loss fell over the last two cycles."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl._checks import need_number
from fastmtl.balancing.base import Balancer
from fastmtl.balancing.cycle import CycleMeans


class DynamicWeightAverage(Balancer):
    """Dynamic weight average (Liu et al. 2019, "End-to-end multi-task learning with attention",
    equation 7): a loss that falls slowly gets a larger weight in the next cycle t,

        w_j(t) = T exp(r_j / temperature) / sum_k exp(r_k / temperature),
        r_j = L_j(t-1) / L_j(t-2)

    with L_j(t) the mean of task j's loss over the steps of cycle t at which it was present. Weights
    are 1 in the first two cycles, sum to T, and change only in `end_cycle`: call it after each
    epoch (fastmtl's trainer does). A task without a loss in either cycle has r_j = 1.

    Args:
        num_tasks: T.
        temperature: larger values bring the weights closer together.

    Raises:
        TypeError or ValueError: for a `num_tasks` that is no int of at least 1, or a temperature
            that is no number above 0.

    Examples:
        >>> balancer = DynamicWeightAverage(num_tasks=2)
        >>> for falling in (4.0, 2.0):
        ...     _ = balancer.backward(torch.tensor([falling, 1.0], requires_grad=True))
        ...     balancer.end_cycle()
        >>> balancer.weights  # r = 1/2, 1
        tensor([0.8756, 1.1244])
    """

    last_means: Tensor

    def __init__(self, num_tasks: int, temperature: float = 2.0) -> None:
        super().__init__(num_tasks)
        need_number("temperature", temperature, above=0.0)
        self.temperature = temperature
        # 0 stands for "none".
        self.register_buffer("last_means", torch.zeros(num_tasks))
        self.cycle = CycleMeans(self.weights)

    @torch.no_grad()
    def end_cycle(self) -> None:
        """Set the weights of the next cycle."""
        means, seen = self.cycle.finish()
        known = seen & (self.last_means > 0)
        ratios = torch.where(known, means / self.last_means, 1)
        ratios.clamp_(max=torch.finfo(ratios.dtype).max)
        self.weights.copy_(self.num_tasks * torch.softmax(ratios / self.temperature, 0))
        self.last_means.copy_(torch.where(seen, means, self.last_means))

    def _prepare(self, values: Tensor, present: Tensor | None) -> None:
        if present is None:
            present = values != 0
        self.cycle.add(values.to(self.weights.dtype), present & values.isfinite().all())
