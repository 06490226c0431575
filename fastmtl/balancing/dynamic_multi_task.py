"""Dynamic multi-task learning: task-level dynamic balancing, re-balanced at every cycle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastmtl._checks import need_flag, need_number
from fastmtl._deprecation import takes_old_arguments
from fastmtl.balancing.cycle import CycleMeans
from fastmtl.balancing.task_dynamic import TaskDynamicBalancing


class DynamicMultiTask(TaskDynamicBalancing):
    """The task-level part of DMTL: TaskDynamicBalancing, and at the start of a training cycle

        w_j <- u_j max_k(avg L_k) / avg L_j,  then floor and scaling to sum T

    with avg L_j the mean of task j's loss over the steps of the last cycle at which it was present,
    and u_j = 1: every cycle starts from weighted losses w_j avg L_j that are equal, and
    TaskDynamicBalancing goes on from there. The paper multiplies w_j, and does not say whether that
    is the weight as it has become. With `cycle_reset=False` it is, u_j = w_j: then the factors
    of all cycles pile up, and where one task's loss stays below another's, so that its factor stays
    above the other's, the ratio of their weights grows without bound.

    A task whose loss goes to 0, as that of a few positives does once they are learnt by heart, has
    a factor without bound, and the weights, whose sum is T, are then its alone. `factor_bound` b
    takes min(max_k(avg L_k) / avg L_j, b) instead; the paper has none.

    A task that was never present, or whose loss was 0 throughout, keeps its weight. Call
    `end_cycle` after each epoch (fastmtl's trainer does), and train with `fastmtl.nn.FocalLoss`,
    the sample-level part. Arguments that are not named here are those of `TaskDynamicBalancing`.

    Args:
        cycle_reset: whether a cycle starts from equal weights, u_j = 1.
        factor_bound: b, above 1; None for the equation as it stands.

    Raises:
        TypeError or ValueError: for a `cycle_reset` that is no bool, a `factor_bound` of at most 1,
            and as TaskDynamicBalancing.

    Examples:
        >>> from fastmtl.nn import SharedLinear
        >>> shared = SharedLinear(4, 3, num_tasks=2)
        >>> balancer = DynamicMultiTask(shared, positives=[20, 300], samples=1000)
        >>> losses = (shared(torch.ones(5, 4)) ** 2).mean((1, 2)) * torch.tensor([1.0, 9.0])
        >>> total = balancer.backward(losses)
        >>> balancer.end_cycle()
        >>> round(float(balancer.weights[0] / balancer.weights[1]), 4)
        9.0
    """

    @takes_old_arguments(where="balance_at")
    def __init__(
        self,
        model: Any,
        positives: Tensor | Sequence[float],
        samples: int,
        alpha: float = 1.0,
        *,
        lr: float = 0.025,
        balance_at: str | None = None,
        imbalance_penalty: bool = True,
        floor: float = 1e-3,
        normalize: bool = True,
        initial: Tensor | None = None,
        scope: str | Sequence[nn.Module | str] = "layer",
        cycle_reset: bool = True,
        factor_bound: float | None = None,
    ) -> None:
        self.cycle_reset = need_flag("cycle_reset", cycle_reset)
        if factor_bound is not None:
            need_number("factor_bound", factor_bound, above=1)
        self.factor_bound = factor_bound
        super().__init__(
            model,
            positives,
            samples,
            alpha,
            lr=lr,
            balance_at=balance_at,
            imbalance_penalty=imbalance_penalty,
            floor=floor,
            normalize=normalize,
            initial=initial,
            scope=scope,
        )

    @torch.no_grad()
    def end_cycle(self) -> None:
        """Re-balance by the losses of the cycle, and start the next one."""
        means, seen = self.cycle.finish()
        largest = torch.where(seen, means, 0).max()
        factors = largest / means
        if self.factor_bound is not None:
            factors = factors.clamp(max=self.factor_bound)
        self._set_weights(factors if self.cycle_reset else self.weights * factors, seen)

    def _register_state(self) -> None:
        super()._register_state()
        self.cycle = CycleMeans(self.weights)

    def _update(self, losses: Tensor, norms: Tensor, present: Tensor) -> Tensor:
        counted = super()._update(losses, norms, present)
        self.cycle.add(losses, counted)
        return counted
