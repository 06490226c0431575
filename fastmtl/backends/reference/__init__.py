"""The specification: every op in plain PyTorch, on any device, with explicit backward formulas.

For each op there are three functions: `<op>` is the formula as one would write it in PyTorch,
differentiated by autograd; `<op>_forward` and `<op>_backward` are the interface that every backend
implements (see `fastmtl.backends`). No other backend is imported here.
"""

from fastmtl.backends.reference.focal_loss import (
    focal_loss,
    focal_loss_backward,
    focal_loss_forward,
)
from fastmtl.backends.reference.graph_fusion import (
    fusion_edge_weights,
    fusion_edge_weights_backward,
    fusion_edge_weights_forward,
    graph_fusion,
    graph_fusion_backward,
    graph_fusion_forward,
)
from fastmtl.backends.reference.grouped_focal_loss import (
    grouped_focal_loss,
    grouped_focal_loss_backward,
    grouped_focal_loss_forward,
)
from fastmtl.backends.reference.least_norm import (
    least_norm_weights,
    least_norm_weights_forward,
)
from fastmtl.backends.reference.precision import accumulation_dtype, full_precision
from fastmtl.backends.reference.stacked_norms import (
    stacked_norms,
    stacked_norms_backward,
    stacked_norms_forward,
)
from fastmtl.backends.reference.task_grads import (
    task_grad_gramian,
    task_grad_gramian_backward,
    task_grad_gramian_forward,
    task_grad_norms,
    task_grad_norms_backward,
    task_grad_norms_forward,
)
from fastmtl.backends.reference.task_gru import (
    task_gru_layer,
    task_gru_layer_backward,
    task_gru_layer_forward,
)

__all__ = [
    "accumulation_dtype",
    "focal_loss",
    "focal_loss_backward",
    "focal_loss_forward",
    "full_precision",
    "fusion_edge_weights",
    "fusion_edge_weights_backward",
    "fusion_edge_weights_forward",
    "graph_fusion",
    "graph_fusion_backward",
    "graph_fusion_forward",
    "grouped_focal_loss",
    "grouped_focal_loss_backward",
    "grouped_focal_loss_forward",
    "least_norm_weights",
    "least_norm_weights_forward",
    "stacked_norms",
    "stacked_norms_backward",
    "stacked_norms_forward",
    "task_grad_gramian",
    "task_grad_gramian_backward",
    "task_grad_gramian_forward",
    "task_grad_norms",
    "task_grad_norms_backward",
    "task_grad_norms_forward",
    "task_gru_layer",
    "task_gru_layer_backward",
    "task_gru_layer_forward",
]
