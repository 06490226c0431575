"""Balancers: task weights from the losses and gradients of the one backward pass."""

from fastmtl.balancing.base import Balancer
from fastmtl.balancing.dynamic_multi_task import DynamicMultiTask
from fastmtl.balancing.equal import Equal
from fastmtl.balancing.grad_norm import GradNorm
from fastmtl.balancing.task_dynamic import TaskDynamicBalancing

__all__ = [
    "Balancer",
    "DynamicMultiTask",
    "Equal",
    "GradNorm",
    "TaskDynamicBalancing",
]
