"""Focal multi-task loss."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl import _checks
from fastmtl.backends.reference import focal_loss as reference
from fastmtl.ops._op import FusedOp

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
    cross-entropy, to rounding. It is finite, with a finite gradient, for every finite logit. Only
    the logits have a gradient, and only a first one.

    Args:
        logits: float32, float64, bfloat16 or float16, with any strides.
        targets: 0 or 1, of any real or bool dtype; NaN means missing, and any other value makes the
            loss NaN.
        gamma: the focusing parameter, at least 0.
        mask: bool, False where a label is missing.
        pos_weight: multiplies the loss of the positives.
        reduction: "task" gives the mean over the present labels of each task, 0 for a task with
            none; "sum" and "mean" reduce over all present labels; "none" gives every element's
            loss, 0 where missing.

    Shape:
        logits, targets, mask (N, T), pos_weight (T,); the loss (T,) for "task", () for "sum" and
        "mean", (N, T) for "none", float64 for float64 logits and float32 otherwise.

    Raises:
        TypeError, ValueError: for arguments of the wrong type, dtype, shape or device.

    Examples:
        >>> import torch
        >>> from fastmtl.ops import focal_loss
        >>> logits = torch.tensor([[0.0, 2.0], [1.0, -3.0]])
        >>> targets = torch.tensor([[1.0, 1.0], [0.0, float("nan")]])
        >>> focal_loss(logits, targets)
        tensor([0.4376, 0.0018])
    """
    _check(logits, targets, mask, pos_weight, gamma, reduction)
    return _focal_loss(logits, targets, mask, pos_weight, float(gamma), reduction)


def _check(
    logits: Tensor,
    targets: Tensor,
    mask: Tensor | None,
    pos_weight: Tensor | None,
    gamma: float,
    reduction: str,
) -> None:
    # Of a small call this is a tenth: questions are asked here, and again where they fail.
    _checks.need_tensor("logits", logits)
    if logits.dtype not in _checks.DTYPES:
        _checks.need_floating("logits", logits)
    _checks.need_tensor("targets", targets)
    shape = logits.shape
    if len(shape) != 2:
        raise ValueError(f"logits: expected shape (N, T), got {tuple(shape)}")
    if targets.shape != shape:
        _checks.need_shape("targets", targets, tuple(shape), "the shape of logits (N, T)")
    if targets.dtype.is_complex:
        raise TypeError(f"targets: expected a real or bool dtype, got {targets.dtype}")
    if targets.device != logits.device:
        _checks.need_device("targets", targets, "logits", logits)
    if targets.requires_grad:
        _checks.need_constant("targets", targets)
    _checks.need_number("gamma", gamma)
    if reduction not in REDUCTIONS:
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


_focal_loss = FusedOp(reference.focal_loss, guard=_check)
