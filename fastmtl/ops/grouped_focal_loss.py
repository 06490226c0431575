"""Focal loss over groups of mutually exclusive classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastmtl import backends
from fastmtl.backends import reference
from fastmtl.ops import _checks
from fastmtl.ops._autograd import once_differentiable
from fastmtl.ops.focal_loss import REDUCTIONS


def grouped_focal_loss(
    logits: Tensor,  # (N, sum C)
    targets: Tensor,  # (N, G)
    group_sizes: Sequence[int],
    *,
    gamma: float = 2.0,
    class_weight: Tensor | None = None,  # (sum C,)
    reduction: str = "task",
) -> Tensor:
    """Focal loss of G multi-class tasks, each a softmax over its own group of columns, fused.

    Group g owns the next `group_sizes[g]` (at least 2) columns of the logits. With p the softmax
    probability of the label within its group, an element's loss is -(1 - p)^gamma log p
    (Lin et al. 2017, eq. 4, over a softmax); gamma = 0 is cross-entropy exactly. It is computed as
    the binary loss of the margin x = z_label - logsumexp(other logits), since p = sigmoid(x).

    `logits` (N, sum C) are float32, float64, bfloat16 or float16. `targets` (N, G), int64, count
    from 0 within the group; -100 means missing, and any other value out of range makes the loss
    NaN. `class_weight` (sum C,) multiplies the loss of the samples with that label; the mean is
    over the number of samples, not of weights. Only the logits have a gradient, and only a first.

    `reduction` is as in `focal_loss`: "task" (G,), "sum" (), "mean" () or "none" (N, G). Losses are
    float64 for float64 logits and float32 otherwise.

    Raises TypeError or ValueError for arguments of the wrong type, dtype, shape or device.

    Example:
        >>> import torch
        >>> from fastmtl.ops import grouped_focal_loss
        >>> logits = torch.tensor([[2.0, 0.0, 1.0, 0.0, -1.0]])  # a pair, and a group of three
        >>> grouped_focal_loss(logits, torch.tensor([[0, -100]]), [2, 3])
        tensor([0.0018, 0.0000])
    """
    sizes = _check(logits, targets, group_sizes, gamma, class_weight, reduction)
    if _checks.traced(logits):
        loss: Tensor = _grouped_focal_loss(
            logits, targets, sizes, class_weight, float(gamma), reduction
        )[0]
        return loss
    kernels = backends.kernels("grouped_focal_loss", logits.device)
    if kernels is reference:
        return reference.grouped_focal_loss(logits, targets, sizes, class_weight, gamma, reduction)
    if logits.requires_grad and torch.is_grad_enabled():
        result: Tensor = _GroupedFocalLoss.apply(
            logits, targets, sizes, class_weight, gamma, reduction, kernels
        )
        return result
    loss, _ = kernels.grouped_focal_loss_forward(
        logits, targets, sizes, class_weight, gamma, reduction
    )
    return loss


def _check(
    logits: Tensor,
    targets: Tensor,
    group_sizes: Sequence[int],
    gamma: float,
    class_weight: Tensor | None,
    reduction: str,
) -> list[int]:
    _checks.need_floating("logits", logits)
    _checks.need_tensor("targets", targets)
    sizes = [int(size) for size in group_sizes]
    if not sizes or min(sizes) < 2:
        raise ValueError(f"group_sizes: expected at least 2 classes in each group, got {sizes}")
    if logits.dim() != 2 or logits.shape[1] != sum(sizes):
        raise ValueError(
            f"logits: expected shape (N, {sum(sizes)}) for group_sizes {sizes}, "
            f"got {tuple(logits.shape)}"
        )
    if targets.dtype != torch.int64:
        raise TypeError(f"targets: expected int64 class indices, got {targets.dtype}")
    _checks.need_shape(
        "targets", targets, (logits.shape[0], len(sizes)), "one label a group (N, G)"
    )
    _checks.need_device("targets", targets, "logits", logits)
    _checks.need_number("gamma", gamma)
    _checks.need_choice("reduction", reduction, REDUCTIONS)
    if class_weight is not None:
        _checks.need_floating("class_weight", class_weight)
        _checks.need_shape("class_weight", class_weight, (sum(sizes),), "one weight a class")
        _checks.need_device("class_weight", class_weight, "logits", logits)
        _checks.need_constant("class_weight", class_weight)
    return sizes


class _GroupedFocalLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        targets: Tensor,
        group_sizes: list[int],
        class_weight: Tensor | None,
        gamma: float,
        reduction: str,
        kernels: Any,
    ) -> Tensor:
        loss, scale = kernels.grouped_focal_loss_forward(
            logits, targets, group_sizes, class_weight, gamma, reduction
        )
        ctx.save_for_backward(scale, logits, targets, class_weight)
        ctx.settings = group_sizes, gamma, reduction, kernels
        result: Tensor = loss
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        scale, logits, targets, class_weight = ctx.saved_tensors
        group_sizes, gamma, reduction, kernels = ctx.settings
        grad_logits = kernels.grouped_focal_loss_backward(
            grad, scale, logits, targets, group_sizes, class_weight, gamma, reduction
        )
        return grad_logits, None, None, None, None, None, None


@torch.library.custom_op("fastmtl::grouped_focal_loss", mutates_args=())
def _grouped_focal_loss(
    logits: Tensor,
    targets: Tensor,
    group_sizes: Sequence[int],
    class_weight: Tensor | None,
    gamma: float,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    kernels = backends.kernels("grouped_focal_loss", logits.device)
    result: tuple[Tensor, Tensor] = kernels.grouped_focal_loss_forward(
        logits, targets, list(group_sizes), class_weight, gamma, reduction
    )
    return result


@torch.library.custom_op("fastmtl::grouped_focal_loss_backward", mutates_args=())
def _grouped_focal_loss_backward(
    grad: Tensor,
    scale: Tensor,
    logits: Tensor,
    targets: Tensor,
    group_sizes: Sequence[int],
    class_weight: Tensor | None,
    gamma: float,
    reduction: str,
) -> Tensor:
    kernels = backends.kernels("grouped_focal_loss", logits.device)
    result: Tensor = kernels.grouped_focal_loss_backward(
        grad, scale, logits, targets, list(group_sizes), class_weight, gamma, reduction
    )
    return result


@_grouped_focal_loss.register_fake
def _(
    logits: Tensor,
    targets: Tensor,
    group_sizes: Sequence[int],
    class_weight: Tensor | None,
    gamma: float,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    dtype = reference.accumulation_dtype(logits.dtype)
    groups = len(group_sizes)
    shape = {"task": (groups,), "none": targets.shape}.get(reduction, ())
    return logits.new_empty(shape, dtype=dtype), logits.new_empty((groups,), dtype=dtype)


@_grouped_focal_loss_backward.register_fake
def _(
    grad: Tensor,
    scale: Tensor,
    logits: Tensor,
    targets: Tensor,
    group_sizes: Sequence[int],
    class_weight: Tensor | None,
    gamma: float,
    reduction: str,
) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    logits, targets, ctx.group_sizes, class_weight, ctx.gamma, ctx.reduction = inputs
    ctx.save_for_backward(output[1], logits, targets, class_weight)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    scale, logits, targets, class_weight = ctx.saved_tensors
    grad_logits: Tensor = _grouped_focal_loss_backward(
        grad, scale, logits, targets, ctx.group_sizes, class_weight, ctx.gamma, ctx.reduction
    )
    return grad_logits, None, None, None, None, None


_grouped_focal_loss.register_autograd(_differentiate, setup_context=_setup)
