"""Focal loss over groups of classes, by the native kernels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastmtl.backends.losses import results
from fastmtl.backends.native import _losses, memory
from fastmtl.backends.reference import grouped_focal_loss as reference


def grouped_focal_loss_forward(
    logits: Tensor,  # (N, sum C)
    targets: Tensor,  # (N, G)
    weight: Tensor | None,  # (sum C,)
    group_sizes: Sequence[int],
    ignore_index: int,
    gamma: float,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    rows, groups = targets.shape
    if groups > memory.limit(logits, "grouped_focal_loss_groups"):
        return reference.grouped_focal_loss_forward(
            logits, targets, weight, group_sizes, ignore_index, gamma, reduction
        )
    loss, scale = results(logits, rows, groups, reduction)
    weight = _losses.vector(weight, scale.dtype)
    workspace = memory.workspace("grouped_focal_loss", logits, rows, groups, logits.shape[1])
    memory.module(logits).grouped_focal_loss_forward(
        memory.execution(logits, workspace),
        memory.matrix(logits),
        memory.matrix(targets),
        group_sizes,
        memory.address(weight),
        rows,
        ignore_index,
        gamma,
        _losses.REDUCTIONS[reduction],
        loss.data_ptr(),
        scale.data_ptr(),
    )
    return loss, scale


def grouped_focal_loss_backward(
    grad_loss: Tensor,  # (G,), () or (N, G), as the reduction
    scale: Tensor,  # (G,)
    logits: Tensor,  # (N, sum C)
    targets: Tensor,  # (N, G)
    weight: Tensor | None,  # (sum C,)
    group_sizes: Sequence[int],
    ignore_index: int,
    gamma: float,
    reduction: str,
) -> Tensor:
    rows, groups = targets.shape
    if groups > memory.limit(logits, "grouped_focal_loss_groups"):
        return reference.grouped_focal_loss_backward(
            grad_loss, scale, logits, targets, weight, group_sizes, ignore_index, gamma, reduction
        )
    weight = _losses.vector(weight, scale.dtype)
    grad_logits = torch.empty_like(logits, memory_format=torch.contiguous_format)
    memory.module(logits).grouped_focal_loss_backward(
        memory.execution(logits),
        memory.matrix(logits),
        memory.matrix(targets),
        group_sizes,
        memory.address(weight),
        rows,
        ignore_index,
        gamma,
        _losses.REDUCTIONS[reduction],
        _losses.broadcast(grad_loss),
        scale.data_ptr(),
        grad_logits.data_ptr(),
    )
    return grad_logits
