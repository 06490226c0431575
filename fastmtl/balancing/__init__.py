"""Balancers: task weights from the losses and gradients of the one backward pass."""

from fastmtl.balancing.base import Balancer
from fastmtl.balancing.dynamic_multi_task import DynamicMultiTask
from fastmtl.balancing.equal import Equal
from fastmtl.balancing.grad_norm import GradNorm
from fastmtl.balancing.gramian import GramianBalancer
from fastmtl.balancing.mgda import MGDA
from fastmtl.balancing.task_dynamic import TaskDynamicBalancing
from fastmtl.balancing.uncertainty import UncertaintyWeighting

__all__ = [
    "MGDA",
    "Balancer",
    "DynamicMultiTask",
    "Equal",
    "GradNorm",
    "GramianBalancer",
    "TaskDynamicBalancing",
    "UncertaintyWeighting",
]
