"""The smooth maximum of the task losses."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl._checks import need_number, need_size
from fastmtl.balancing.base import Balancer
from fastmtl.balancing.cycle import CycleMeans
from fastmtl.balancing.running import RunningMeans


class STCH(Balancer):
    """Smooth Tchebycheff scalarisation (Lin et al. 2024, "Smooth Tchebycheff scalarization for
    multi-objective optimization", equation 10, as its authors' code applies it to networks):
    minimises a smooth maximum of the losses relative to those after a warm-up, in logarithms,

        P mu log sum_j exp(log(L_j / N_j) / mu),    w_j = P softmax_j(log(L_k / N_k) / mu) / L_j

    for the P tasks present in the batch; during the warm-up sum_j log L_j, w_j = 1 / L_j. N_j is
    the mean of L_j over the last cycle of the warm-up, or, of a task without a loss in it, over the
    first cycle with one. Call `end_cycle` after each epoch (fastmtl's trainer does): without it the
    warm-up does not end. `backward` returns sum_j w_j L_j. Losses must not be negative; one whose
    mean is 0 counts as absent.

    L_j in w_j is the mean of the task's loss over the last steps, about 1 / (1 - momentum) of them:
    on one batch the loss of a rare label is close to 0, and 1 / L_j would give it the weight of all
    others. `momentum=0` takes each batch's, as the authors' code does.

    Args:
        num_tasks: T.
        mu: how smooth the maximum is; near 0 it is that of the largest relative loss.
        warmup: cycles of warm-up.
        momentum: in [0, 1).

    Raises:
        TypeError or ValueError: for a `num_tasks` or `warmup` that is no int of at least 1, or
            numbers out of range.

    Examples:
        >>> balancer = STCH(num_tasks=2, warmup=1, momentum=0.0)
        >>> for losses in ([1.0, 4.0], [1.0, 2.0]):
        ...     _ = balancer.backward(torch.tensor(losses, requires_grad=True))
        ...     balancer.end_cycle()
        >>> balancer.weights  # 2 (2/3, 1/3) / (1, 2): the second has fallen to 1/2
        tensor([1.3333, 0.3333])
    """

    nadir: Tensor
    cycles: Tensor

    def __init__(
        self, num_tasks: int, mu: float = 1.0, *, warmup: int = 5, momentum: float = 0.99
    ) -> None:
        super().__init__(num_tasks)
        need_number("mu", mu, above=0.0)
        self.mu = mu
        self.warmup = need_size("warmup", warmup)
        self.running = RunningMeans(self.weights, momentum)
        self.cycle = CycleMeans(self.weights)
        # 0 stands for "none".
        self.register_buffer("nadir", torch.zeros(num_tasks))
        self.register_buffer("cycles", torch.zeros(num_tasks))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, mu={self.mu}, warmup={self.warmup}"

    @torch.no_grad()
    def end_cycle(self) -> None:
        """Count a cycle, and take the means of the last one of the warm-up."""
        means, seen = self.cycle.finish()
        self.cycles.add_(1)
        taken = seen & (self.nadir == 0) & (self.cycles >= self.warmup)
        self.nadir.copy_(torch.where(taken, means, self.nadir))

    def _prepare(self, values: Tensor, present: Tensor | None) -> None:
        if present is None:
            present = values != 0
        present = present & values.isfinite().all()
        values = values.to(self.weights.dtype)
        self.cycle.add(values, present)
        self.running.add(values, present)
        means = self.running.means
        present = present & (means > 0)
        relative = torch.where(self.nadir > 0, means.log() - self.nadir.log(), 0)
        logits = torch.where(present, relative / self.mu, -torch.inf)
        shares = present.sum() * torch.softmax(logits, 0)
        weights = torch.where(self.cycles >= self.warmup, shares, 1) / means
        taken = present & weights.isfinite()
        self.weights.copy_(torch.where(taken, weights, self.weights))
