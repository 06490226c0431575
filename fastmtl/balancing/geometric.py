"""The geometric mean of the task losses."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl.balancing.base import Balancer
from fastmtl.balancing.running import RunningMeans


class GeometricMean(Balancer):
    """Geometric loss strategy (Chennupati et al. 2019, "MultiNet++", equation 5): minimises

        L = (prod_j L_j)^(1/T),    whose gradient is sum_j w_j dL_j with w_j = L / (T L_j)

    so that every task's loss falls by the same fraction, whatever its scale. The product is over
    the P <= T tasks present in the batch, and P replaces T; `backward` returns sum_j w_j L_j. The
    weights need not sum to T.

    L_j in w_j is the mean of the task's loss over the last steps, about 1 / (1 - momentum) of them.
    The equation is about losses that are expectations; that of a rare label on one batch, which
    mostly holds no positive of it, is close to 0, and 1 / L_j would give it the weight of all
    others. With `momentum=0`, the equation on each batch as it stands, `backward` returns L.

    Losses must not be negative. One whose mean is 0 counts as absent, since it would end the
    training of all others.

    Args:
        num_tasks: T.
        momentum: in [0, 1).

    Raises:
        TypeError or ValueError: for a `num_tasks` that is no int of at least 1, or a momentum out
            of range.

    Examples:
        >>> balancer = GeometricMean(num_tasks=2)
        >>> losses = torch.tensor([1.0, 4.0], requires_grad=True)
        >>> balancer.backward(losses)
        tensor(2.)
        >>> losses.grad
        tensor([1.0000, 0.2500])
    """

    def __init__(self, num_tasks: int, *, momentum: float = 0.99) -> None:
        super().__init__(num_tasks)
        self.running = RunningMeans(self.weights, momentum)

    def _prepare(self, values: Tensor, present: Tensor | None) -> None:
        if present is None:
            present = values != 0
        present = present & values.isfinite().all()
        self.running.add(values.to(self.weights.dtype), present)
        means = self.running.means
        present = present & (means > 0)
        count = present.sum().clamp(min=1)
        logs = torch.where(present, means, 1).log()
        weights = torch.exp(logs.sum() / count - logs) / count
        taken = present & weights.isfinite().all()
        self.weights.copy_(torch.where(taken, weights, self.weights))
