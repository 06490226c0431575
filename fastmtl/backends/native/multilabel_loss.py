"""Multi-label loss, by the native kernels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastmtl.backends.losses import PER_TASK, results
from fastmtl.backends.native import _losses, memory


def multilabel_loss_forward(
    logits: Tensor,  # (N, T)
    targets: Tensor,  # (N, T)
    weight: Tensor | None,  # (N, T)
    gamma_pos: Tensor | None,  # (T,)
    gamma_neg: Tensor | None,  # (T,)
    pos_weight: Tensor | None,  # (T,)
    neg_weight: Tensor | None,  # (T,)
    shift: Tensor | None,  # (T,)
    options: Sequence[float],  # MultilabelOptions
    detach_focus: bool,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    rows, tasks = logits.shape
    loss, scale = results(logits, rows, tasks, reduction)
    if targets.dtype not in memory.DTYPES:
        targets = targets.to(torch.int64)
    of_tasks = _by_task(scale.dtype, gamma_pos, gamma_neg, pos_weight, neg_weight, shift)
    workspace = memory.workspace("multilabel_loss", logits, rows, tasks)
    memory.module(logits).multilabel_loss_forward(
        memory.execution(logits, workspace),
        memory.matrix(logits),
        memory.matrix(targets),
        memory.matrix(weight),
        *_numbers(of_tasks, options),
        rows,
        tasks,
        *options[PER_TASK:],
        detach_focus,
        _losses.REDUCTIONS[reduction],
        loss.data_ptr(),
        scale.data_ptr(),
    )
    return loss, scale


def multilabel_loss_backward(
    grad_loss: Tensor,  # (T,), () or (N, T), as the reduction
    scale: Tensor,  # (T,)
    logits: Tensor,  # (N, T)
    targets: Tensor,  # (N, T)
    weight: Tensor | None,  # (N, T)
    gamma_pos: Tensor | None,  # (T,)
    gamma_neg: Tensor | None,  # (T,)
    pos_weight: Tensor | None,  # (T,)
    neg_weight: Tensor | None,  # (T,)
    shift: Tensor | None,  # (T,)
    options: Sequence[float],  # MultilabelOptions
    detach_focus: bool,
    reduction: str,
) -> Tensor:
    if targets.dtype not in memory.DTYPES:
        targets = targets.to(torch.int64)
    of_tasks = _by_task(scale.dtype, gamma_pos, gamma_neg, pos_weight, neg_weight, shift)
    grad_logits = torch.empty_like(logits, memory_format=torch.contiguous_format)
    memory.module(logits).multilabel_loss_backward(
        memory.execution(logits),
        memory.matrix(logits),
        memory.matrix(targets),
        memory.matrix(weight),
        *_numbers(of_tasks, options),
        *logits.shape,
        *options[PER_TASK:],
        detach_focus,
        _losses.REDUCTIONS[reduction],
        _losses.broadcast(grad_loss),
        scale.data_ptr(),
        grad_logits.data_ptr(),
    )
    return grad_logits


def _by_task(dtype: torch.dtype, *tensors: Tensor | None) -> list[Tensor | None]:
    """The numbers of every task as the kernels read them."""
    return [_losses.vector(tensor, dtype) for tensor in tensors]


def _numbers(
    tensors: list[Tensor | None], options: Sequence[float]
) -> list[tuple[int | float, ...]]:
    """The same as arguments of the kernels."""
    return [
        (memory.address(tensor), same)
        for tensor, same in zip(tensors, options[:PER_TASK], strict=True)
    ]
