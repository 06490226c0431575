"""The losses, by the native kernels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastmtl.backends import reference
from fastmtl.backends.native import memory
from fastmtl.backends.reference import accumulation_dtype

# Of csrc/cuda/grouped_focal_loss.cu.
_MOST_GROUPS = 768


def focal_loss_forward(
    logits: Tensor,  # (N, T)
    targets: Tensor,  # (N, T)
    mask: Tensor | None,  # (N, T)
    pos_weight: Tensor | None,  # (T,)
    gamma: float,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    rows, tasks = logits.shape
    dtype = accumulation_dtype(logits.dtype)
    targets = _readable(targets)
    weight = _as_vector(pos_weight, dtype)
    loss = logits.new_empty(_loss_shape(reduction, rows, tasks), dtype=dtype)
    scale = logits.new_empty(tasks, dtype=dtype)
    workspace = memory.workspace("focal_loss", logits, rows, tasks)
    memory.module(logits).focal_loss_forward(
        memory.execution(logits, workspace),
        memory.matrix(logits),
        memory.matrix(targets),
        memory.ABSENT if mask is None else memory.matrix(mask),
        memory.address(weight),
        rows,
        tasks,
        gamma,
        memory.REDUCTIONS[reduction],
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
    rows, tasks = logits.shape
    targets = _readable(targets)
    weight = _as_vector(pos_weight, scale.dtype)
    grad_logits = torch.empty_like(logits, memory_format=torch.contiguous_format)
    memory.module(logits).focal_loss_backward(
        memory.execution(logits),
        memory.matrix(logits),
        memory.matrix(targets),
        memory.ABSENT if mask is None else memory.matrix(mask),
        memory.address(weight),
        rows,
        tasks,
        gamma,
        memory.REDUCTIONS[reduction],
        _broadcast(grad_loss),
        scale.data_ptr(),
        grad_logits.data_ptr(),
    )
    return grad_logits


def grouped_focal_loss_forward(
    logits: Tensor,  # (N, sum C)
    targets: Tensor,  # (N, G)
    group_sizes: Sequence[int],
    class_weight: Tensor | None,  # (sum C,)
    gamma: float,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    if _too_many(group_sizes, logits):
        return reference.grouped_focal_loss_forward(
            logits, targets, group_sizes, class_weight, gamma, reduction
        )
    rows, groups = targets.shape
    dtype = accumulation_dtype(logits.dtype)
    weight = _as_vector(class_weight, dtype)
    loss = logits.new_empty(_loss_shape(reduction, rows, groups), dtype=dtype)
    scale = logits.new_empty(groups, dtype=dtype)
    workspace = memory.workspace("grouped_focal_loss", logits, rows, groups, logits.shape[1])
    memory.module(logits).grouped_focal_loss_forward(
        memory.execution(logits, workspace),
        memory.matrix(logits),
        memory.matrix(targets),
        group_sizes,
        memory.address(weight),
        rows,
        -100,
        gamma,
        memory.REDUCTIONS[reduction],
        loss.data_ptr(),
        scale.data_ptr(),
    )
    return loss, scale


def grouped_focal_loss_backward(
    grad_loss: Tensor,  # (G,), () or (N, G), as the reduction
    scale: Tensor,  # (G,)
    logits: Tensor,  # (N, sum C)
    targets: Tensor,  # (N, G)
    group_sizes: Sequence[int],
    class_weight: Tensor | None,  # (sum C,)
    gamma: float,
    reduction: str,
) -> Tensor:
    if _too_many(group_sizes, logits):
        return reference.grouped_focal_loss_backward(
            grad_loss, scale, logits, targets, group_sizes, class_weight, gamma, reduction
        )
    weight = _as_vector(class_weight, scale.dtype)
    grad_logits = torch.empty_like(logits, memory_format=torch.contiguous_format)
    memory.module(logits).grouped_focal_loss_backward(
        memory.execution(logits),
        memory.matrix(logits),
        memory.matrix(targets),
        group_sizes,
        memory.address(weight),
        logits.shape[0],
        -100,
        gamma,
        memory.REDUCTIONS[reduction],
        _broadcast(grad_loss),
        scale.data_ptr(),
        grad_logits.data_ptr(),
    )
    return grad_logits


def _readable(targets: Tensor) -> Tensor:
    """Targets of a dtype that the kernels read; integers of other widths are widened."""
    return targets if targets.dtype in memory.DTYPES else targets.to(torch.int64)


def _as_vector(weight: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if weight is None else weight.to(dtype).contiguous()


def _loss_shape(reduction: str, rows: int, tasks: int) -> tuple[int, ...]:
    if reduction == "task":
        return (tasks,)
    return (rows, tasks) if reduction == "none" else ()


def _broadcast(grad: Tensor) -> tuple[int, ...]:
    """The gradient of a reduced loss as a matrix over the elements, with strides of 0."""
    strides = grad.stride()
    return (grad.data_ptr(), memory.DTYPES[grad.dtype], *(0,) * (2 - len(strides)), *strides)


def _too_many(group_sizes: Sequence[int], logits: Tensor) -> bool:
    """Whether there are more groups than the CUDA kernels take."""
    return len(group_sizes) > _MOST_GROUPS and logits.is_cuda
