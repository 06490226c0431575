"""The native backend: C++ kernels on the CPU, CUDA kernels on NVIDIA GPUs.

The functions have the signatures of `fastmtl.backends.reference`, and their arguments were checked
by `fastmtl.ops`. Both extension modules have the same functions (csrc/kernels.h).
"""

from typing import Any

from torch import Tensor

from fastmtl.backends.native import memory, task_gru, task_gru_cuda
from fastmtl.backends.native.fusion import (
    fusion_edge_weights_backward,
    fusion_edge_weights_forward,
    graph_fusion_backward,
    graph_fusion_forward,
)
from fastmtl.backends.native.grads import (
    least_norm_weights_forward,
    stacked_norms_backward,
    stacked_norms_forward,
    task_grad_gramian_forward,
    task_grad_norms_forward,
)
from fastmtl.backends.native.losses import (
    focal_loss_backward,
    focal_loss_forward,
    grouped_focal_loss_backward,
    grouped_focal_loss_forward,
)
from fastmtl.backends.native.memory import isa, unusable, use_isa
from fastmtl.backends.reference import task_grad_gramian_backward, task_grad_norms_backward

__all__ = [
    "focal_loss_backward",
    "focal_loss_forward",
    "fusion_edge_weights_backward",
    "fusion_edge_weights_forward",
    "graph_fusion_backward",
    "graph_fusion_forward",
    "grouped_focal_loss_backward",
    "grouped_focal_loss_forward",
    "isa",
    "least_norm_weights_forward",
    "stacked_norms_backward",
    "stacked_norms_forward",
    "task_grad_gramian_backward",
    "task_grad_gramian_forward",
    "task_grad_norms_backward",
    "task_grad_norms_forward",
    "task_gru_layer_backward",
    "task_gru_layer_forward",
    "use_isa",
    "why_not",
]


def why_not(op: str, device: str) -> str:
    """Why this backend does not serve `op` on `device`; empty if it does."""
    reason = unusable(device)
    if reason:
        return reason
    return "" if f"{op}_forward" in globals() else f"no native kernel for {device}"


def task_gru_layer_forward(x: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    if _on_gpu(x):
        return task_gru_cuda.task_gru_layer_forward(x, *arguments)
    return task_gru.task_gru_layer_forward(x, *arguments)


def task_gru_layer_backward(
    grad: Tensor, *arguments: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    if _on_gpu(grad):
        return task_gru_cuda.task_gru_layer_backward(grad, *arguments)
    return task_gru.task_gru_layer_backward(grad, *arguments)


def _on_gpu(tensor: Tensor) -> bool:
    """Whether a tensor is served by the CUDA kernels."""
    return bool(memory.module(tensor).device == "cuda")
