"""The native backend: C++ kernels on the CPU, CUDA kernels on NVIDIA GPUs.

The functions have the signatures of `fastmtl.backends.reference`, and their arguments were checked
by `fastmtl.ops`. Both extension modules have the same functions (csrc/kernels.h).
"""

from fastmtl.backends.native import memory
from fastmtl.backends.native.fusion import (
    fusion_edge_weights_backward,
    fusion_edge_weights_forward,
    graph_fusion_backward,
    graph_fusion_forward,
)
from fastmtl.backends.native.grads import (
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
from fastmtl.backends.native.task_gru import task_gru_layer_backward, task_gru_layer_forward
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
    kernels = memory.cuda if device == "cuda" else memory.cpu
    if f"{op}_forward" not in globals() or (
        op == "task_gru_layer" and not hasattr(kernels, "task_gru_forward")
    ):
        return f"no native kernel for {device}"
    return ""
