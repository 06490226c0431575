"""The fused operations: public functions, argument checks, autograd and torch.library."""

from fastmtl.ops.focal_loss import focal_loss
from fastmtl.ops.gradient_surgery import gradvac_weights, pcgrad_weights
from fastmtl.ops.graph_fusion import fusion_edge_weights, graph_fusion
from fastmtl.ops.grouped_focal_loss import grouped_focal_loss
from fastmtl.ops.least_norm import least_norm_weights
from fastmtl.ops.multilabel_loss import multilabel_loss
from fastmtl.ops.nonnegative_qp import nonnegative_qp
from fastmtl.ops.stacked_norms import stacked_norms
from fastmtl.ops.task_grads import task_grad_gramian, task_grad_norms
from fastmtl.ops.task_gru import task_gru_layer

__all__ = [
    "focal_loss",
    "fusion_edge_weights",
    "gradvac_weights",
    "graph_fusion",
    "grouped_focal_loss",
    "least_norm_weights",
    "multilabel_loss",
    "nonnegative_qp",
    "pcgrad_weights",
    "stacked_norms",
    "task_grad_gramian",
    "task_grad_norms",
    "task_gru_layer",
]
