"""The geometric mean of the task losses."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl.balancing.base import Balancer


class GeometricMean(Balancer):
    """Geometric loss strategy (Chennupati et al. 2019, "MultiNet++", equation 5): minimises

        L = (prod_j L_j)^(1/T),    whose gradient is sum_j w_j dL_j with w_j = L / (T L_j)

    so that every task's loss falls by the same fraction, whatever its scale; `backward` returns L.
    The product is over the P <= T tasks present in the batch, and P replaces T. Losses must be
    positive: one that is 0 counts as absent, since it would end the training of all others. The
    weights need not sum to T.

    Args:
        num_tasks: T.

    Raises:
        TypeError or ValueError: for a `num_tasks` that is no int of at least 1.

    Example:
        >>> balancer = GeometricMean(num_tasks=2)
        >>> losses = torch.tensor([1.0, 4.0], requires_grad=True)
        >>> balancer.backward(losses)
        tensor(2.)
        >>> losses.grad
        tensor([1.0000, 0.2500])
    """

    def _prepare(self, values: Tensor, present: Tensor | None) -> None:
        positive = values > 0
        present = positive if present is None else present & positive
        count = present.sum().clamp(min=1)
        logs = torch.where(present, values, 1).to(self.weights.dtype).log()
        weights = torch.exp(logs.sum() / count - logs) / count
        finite = values.isfinite().all() & weights.isfinite().all()
        self.weights.copy_(torch.where(present & finite, weights, self.weights))
