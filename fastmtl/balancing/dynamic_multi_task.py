"""Dynamic multi-task learning: task-level dynamic balancing, re-balanced at every cycle."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl.balancing.cycle import CycleMeans
from fastmtl.balancing.task_dynamic import TaskDynamicBalancing


class DynamicMultiTask(TaskDynamicBalancing):
    """The task-level part of DMTL: TaskDynamicBalancing, and at the end of a training cycle

        w_j <- w_j max_k(avg L_k) / avg L_j,  then floor and scaling to sum T

    with avg L_j the mean of task j's loss over the steps of the cycle at which it was present. A
    task that was never present, or whose loss was 0 throughout, keeps its weight. Call `end_cycle`
    after each epoch (fastmtl's trainer does), and train with `fastmtl.nn.FocalLoss`, the
    sample-level part. Arguments and errors are those of TaskDynamicBalancing.

    Example:
        >>> from fastmtl.nn import SharedLinear
        >>> shared = SharedLinear(4, 3, num_tasks=2)
        >>> balancer = DynamicMultiTask(shared, positives=[20, 300], samples=1000)
        >>> losses = (shared(torch.ones(5, 4)) ** 2).mean((1, 2)) * torch.tensor([1.0, 9.0])
        >>> total = balancer.backward(losses)
        >>> ratio = balancer.weights[0] / balancer.weights[1]
        >>> balancer.end_cycle()
        >>> round(float(balancer.weights[0] / balancer.weights[1] / ratio), 4)
        9.0
    """

    @torch.no_grad()
    def end_cycle(self) -> None:
        """Re-balance by the losses of the cycle, and start the next one."""
        means, seen = self.cycle.finish()
        largest = torch.where(seen, means, 0).max()
        self._set_weights(self.weights * (largest / means), seen)

    def _register_state(self) -> None:
        super()._register_state()
        self.cycle = CycleMeans(self.weights)

    def _update(self, losses: Tensor, norms: Tensor, present: Tensor) -> Tensor:
        counted = super()._update(losses, norms, present)
        self.cycle.add(losses, counted)
        return counted
