"""Layers of multi-task and multimodal networks, thin over `fastmtl.ops`."""

from __future__ import annotations

from fastmtl.nn.attention_unit import DynamicAttentionUnit
from fastmtl.nn.focal_loss import FocalLoss
from fastmtl.nn.fusion_levels import FusionLevel, fusion_levels
from fastmtl.nn.graph_fusion import HierarchicalGraphFusion
from fastmtl.nn.grouped_focal_loss import GroupedFocalLoss
from fastmtl.nn.shared import SharedLinear, TaskFork
from fastmtl.nn.task_attention import TaskAttention
from fastmtl.nn.task_gru import TaskGRU
from fastmtl.nn.task_interaction import TaskInteraction
from fastmtl.nn.task_linear import TaskLinear

__all__ = [
    "DynamicAttentionUnit",
    "FocalLoss",
    "FusionLevel",
    "GroupedFocalLoss",
    "HierarchicalGraphFusion",
    "SharedLinear",
    "TaskAttention",
    "TaskFork",
    "TaskGRU",
    "TaskInteraction",
    "TaskLinear",
    "fusion_levels",
]
