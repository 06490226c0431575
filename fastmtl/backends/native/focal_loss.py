"""Focal multi-task loss, by the native kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl.backends.losses import results
from fastmtl.backends.native import _losses, memory


def focal_loss_forward(
    logits: Tensor,  # (N, T)
    targets: Tensor,  # (N, T)
    mask: Tensor | None,  # (N, T)
    pos_weight: Tensor | None,  # (T,)
    gamma: float,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    rows, tasks = logits.shape
    loss, scale = results(logits, rows, tasks, reduction)
    if targets.dtype not in memory.DTYPES:
        targets = targets.to(torch.int64)
    weight = _losses.vector(pos_weight, scale.dtype)
    workspace = memory.workspace("focal_loss", logits, rows, tasks)
    memory.module(logits).focal_loss_forward(
        memory.execution(logits, workspace),
        memory.matrix(logits),
        memory.matrix(targets),
        memory.matrix(mask),
        memory.address(weight),
        rows,
        tasks,
        gamma,
        _losses.REDUCTIONS[reduction],
        loss.data_ptr(),
        scale.data_ptr(),
    )
    return loss, scale


def focal_loss_backward(
    grad_loss: Tensor,  # (T,), () or (N, T), as the reduction
    scale: Tensor,  # (T,)
    logits: Tensor,  # (N, T)
    targets: Tensor,  # (N, T)
    mask: Tensor | None,  # (N, T)
    pos_weight: Tensor | None,  # (T,)
    gamma: float,
    reduction: str,
) -> Tensor:
    if targets.dtype not in memory.DTYPES:
        targets = targets.to(torch.int64)
    weight = _losses.vector(pos_weight, scale.dtype)
    grad_logits = torch.empty_like(logits, memory_format=torch.contiguous_format)
    memory.module(logits).focal_loss_backward(
        memory.execution(logits),
        memory.matrix(logits),
        memory.matrix(targets),
        memory.matrix(mask),
        memory.address(weight),
        *logits.shape,
        gamma,
        _losses.REDUCTIONS[reduction],
        _losses.broadcast(grad_loss),
        scale.data_ptr(),
        grad_logits.data_ptr(),
    )
    return grad_logits
