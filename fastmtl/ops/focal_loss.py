"""Focal multi-task loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastmtl import backends
from fastmtl.backends import reference
from fastmtl.ops import _checks
from fastmtl.ops._autograd import once_differentiable

REDUCTIONS = ("task", "sum", "mean", "none")


def focal_loss(
    logits: Tensor,  # (N, T)
    targets: Tensor,  # (N, T)
    *,
    gamma: float = 2.0,
    mask: Tensor | None = None,  # (N, T)
    pos_weight: Tensor | None = None,  # (T,)
    reduction: str = "task",
) -> Tensor:
    """Focal loss of T binary tasks, fused, with missing labels.

    For a logit z with label y, p = sigmoid(z) if y = 1, else sigmoid(-z), an element's loss is

        -(1 - p)^gamma log p

    (Lin et al. 2017, "Focal Loss for Dense Object Detection", eq. 4); gamma = 0 is binary
    cross-entropy exactly. It is finite, with a finite gradient, for every finite logit.

    `logits` (N, T) are float32, float64, bfloat16 or float16 with any strides. `targets` (N, T)
    are 0 or 1, of any real or bool dtype; NaN means missing, and any other value makes the loss
    NaN. `mask` (N, T), bool, is False where a label is missing. `pos_weight` (T,) multiplies the
    loss of the positives. Only the logits have a gradient, and only a first one.

    `reduction` "task" gives the mean over the present labels of each task, (T,), 0 for a task
    with none; "sum" and "mean" reduce over all present labels, (); "none" gives every element's
    loss, (N, T), 0 where missing. Losses are float64 for float64 logits and float32 otherwise.

    Raises TypeError or ValueError for arguments of the wrong type, dtype, shape or device.

    Example:
        >>> import torch
        >>> from fastmtl.ops import focal_loss
        >>> logits = torch.tensor([[0.0, 2.0], [1.0, -3.0]])
        >>> targets = torch.tensor([[1.0, 1.0], [0.0, float("nan")]])
        >>> focal_loss(logits, targets)
        tensor([0.4376, 0.0018])
    """
    _check(logits, targets, gamma, mask, pos_weight, reduction)
    if _checks.traced(logits):
        loss: Tensor = _focal_loss(logits, targets, mask, pos_weight, float(gamma), reduction)[0]
        return loss
    kernels = backends.kernels("focal_loss", logits.device)
    if kernels is reference:
        return reference.focal_loss(logits, targets, mask, pos_weight, gamma, reduction)
    if logits.requires_grad and torch.is_grad_enabled():
        result: Tensor = _FocalLoss.apply(
            logits, targets, mask, pos_weight, gamma, reduction, kernels
        )
        return result
    loss, _ = kernels.focal_loss_forward(logits, targets, mask, pos_weight, gamma, reduction)
    return loss


def _check(
    logits: Tensor,
    targets: Tensor,
    gamma: float,
    mask: Tensor | None,
    pos_weight: Tensor | None,
    reduction: str,
) -> None:
    _checks.need_floating("logits", logits)
    _checks.need_tensor("targets", targets)
    shape = logits.shape
    if len(shape) != 2:
        raise ValueError(f"logits: expected shape (N, T), got {tuple(shape)}")
    if targets.shape != shape:
        _checks.need_shape("targets", targets, tuple(shape), "the shape of logits (N, T)")
    if targets.dtype.is_complex:
        raise TypeError(f"targets: expected a real or bool dtype, got {targets.dtype}")
    _checks.need_device("targets", targets, "logits", logits)
    _checks.need_constant("targets", targets)
    _checks.need_number("gamma", gamma)
    _checks.need_choice("reduction", reduction, REDUCTIONS)
    if mask is not None:
        _checks.need_tensor("mask", mask)
        if mask.dtype != torch.bool:
            raise TypeError(f"mask: expected bool, True where present, got {mask.dtype}")
        _checks.need_shape("mask", mask, tuple(shape), "the shape of logits (N, T)")
        _checks.need_device("mask", mask, "logits", logits)
    if pos_weight is not None:
        _checks.need_floating("pos_weight", pos_weight)
        _checks.need_shape("pos_weight", pos_weight, (shape[1],), "one weight a task (T,)")
        _checks.need_device("pos_weight", pos_weight, "logits", logits)
        _checks.need_constant("pos_weight", pos_weight)


class _FocalLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        targets: Tensor,
        mask: Tensor | None,
        pos_weight: Tensor | None,
        gamma: float,
        reduction: str,
        kernels: Any,
    ) -> Tensor:
        loss, scale = kernels.focal_loss_forward(
            logits, targets, mask, pos_weight, gamma, reduction
        )
        ctx.save_for_backward(scale, logits, targets, mask, pos_weight)
        ctx.settings = gamma, reduction, kernels
        result: Tensor = loss
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        gamma, reduction, kernels = ctx.settings
        grad_logits = kernels.focal_loss_backward(grad, *ctx.saved_tensors, gamma, reduction)
        return grad_logits, None, None, None, None, None, None


@torch.library.custom_op("fastmtl::focal_loss", mutates_args=())
def _focal_loss(
    logits: Tensor,
    targets: Tensor,
    mask: Tensor | None,
    pos_weight: Tensor | None,
    gamma: float,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    kernels = backends.kernels("focal_loss", logits.device)
    result: tuple[Tensor, Tensor] = kernels.focal_loss_forward(
        logits, targets, mask, pos_weight, gamma, reduction
    )
    return result


@torch.library.custom_op("fastmtl::focal_loss_backward", mutates_args=())
def _focal_loss_backward(
    grad: Tensor,
    scale: Tensor,
    logits: Tensor,
    targets: Tensor,
    mask: Tensor | None,
    pos_weight: Tensor | None,
    gamma: float,
    reduction: str,
) -> Tensor:
    kernels = backends.kernels("focal_loss", logits.device)
    result: Tensor = kernels.focal_loss_backward(
        grad, scale, logits, targets, mask, pos_weight, gamma, reduction
    )
    return result


@_focal_loss.register_fake
def _(
    logits: Tensor,
    targets: Tensor,
    mask: Tensor | None,
    pos_weight: Tensor | None,
    gamma: float,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    dtype = reference.accumulation_dtype(logits.dtype)
    tasks = logits.shape[1]
    shape = {"task": (tasks,), "none": logits.shape}.get(reduction, ())
    return logits.new_empty(shape, dtype=dtype), logits.new_empty((tasks,), dtype=dtype)


@_focal_loss_backward.register_fake
def _(
    grad: Tensor,
    scale: Tensor,
    logits: Tensor,
    targets: Tensor,
    mask: Tensor | None,
    pos_weight: Tensor | None,
    gamma: float,
    reduction: str,
) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    logits, targets, mask, pos_weight, ctx.gamma, ctx.reduction = inputs
    ctx.save_for_backward(output[1], logits, targets, mask, pos_weight)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    grad_logits: Tensor = _focal_loss_backward(grad, *ctx.saved_tensors, ctx.gamma, ctx.reduction)
    return grad_logits, None, None, None, None, None


_focal_loss.register_autograd(_differentiate, setup_context=_setup)
