"""Task weights drawn anew in every step."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from fastmtl.balancing.base import Balancer


class RandomLossWeighting(Balancer):
    """Random loss weighting (Lin et al. 2022, "Reasonable effectiveness of random weighting",
    section 3.1): in every step, with independent normal z,

        w = T softmax(z),    z_j ~ N(0, 1)

    T times the paper's weights, so that each is 1 on average. A baseline that a method of balancing
    should beat. z comes from PyTorch's generator of the device the balancer is on: a seed fixes the
    weights of a run, and its state is not part of `state_dict`. Ranks take the draw of the first.

    Args:
        num_tasks: T.

    Raises:
        TypeError or ValueError: for a `num_tasks` that is no int of at least 1.

    Examples:
        >>> _ = torch.manual_seed(0)
        >>> balancer = RandomLossWeighting(num_tasks=3)
        >>> _ = balancer.backward(torch.ones(3, requires_grad=True))
        >>> balancer.weights
        tensor([2.5339, 0.4047, 0.0614])
    """

    needs: ClassVar[str] = "nothing"

    def _prepare(self, values: Tensor, present: Tensor | None) -> None:
        normal = self._same_on_ranks(torch.randn_like(self.weights))
        self.weights.copy_(self.num_tasks * torch.softmax(normal, 0))
