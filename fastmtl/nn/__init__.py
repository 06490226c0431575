"""Layers of multi-task and multimodal networks, thin over `fastmtl.ops`."""

from __future__ import annotations

from fastmtl.nn.asymmetric_loss import AsymmetricLoss
from fastmtl.nn.attention_unit import DynamicAttentionUnit
from fastmtl.nn.distribution_balanced_loss import DistributionBalancedLoss
from fastmtl.nn.focal_loss import FocalLoss
from fastmtl.nn.fusion_levels import FusionLevel, fusion_levels
from fastmtl.nn.graph_fusion import HierarchicalGraphFusion
from fastmtl.nn.grouped_focal_loss import GroupedFocalLoss
from fastmtl.nn.label_weights import class_balanced_weights, log_odds, rebalanced_weights
from fastmtl.nn.multilabel_loss import MultilabelLoss
from fastmtl.nn.shared import SharedLinear, TaskFork
from fastmtl.nn.task_attention import TaskAttention
from fastmtl.nn.task_gru import TaskGRU
from fastmtl.nn.task_interaction import TaskInteraction
from fastmtl.nn.task_linear import TaskLinear

__all__ = [
    "AsymmetricLoss",
    "DistributionBalancedLoss",
    "DynamicAttentionUnit",
    "FocalLoss",
    "FusionLevel",
    "GroupedFocalLoss",
    "HierarchicalGraphFusion",
    "MultilabelLoss",
    "SharedLinear",
    "TaskAttention",
    "TaskFork",
    "TaskGRU",
    "TaskInteraction",
    "TaskLinear",
    "class_balanced_weights",
    "fusion_levels",
    "log_odds",
    "rebalanced_weights",
]
