"""Losses of multi-label classification, as options of one fused op."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TypeAlias

import torch
from torch import Tensor

from fastmtl import _checks
from fastmtl.backends.losses import MultilabelOptions
from fastmtl.backends.reference import multilabel_loss as reference
from fastmtl.ops._op import FusedOp
from fastmtl.ops.focal_loss import REDUCTIONS

ByTask: TypeAlias = float | Tensor  # one number, or (T,)


def multilabel_loss(
    logits: Tensor,  # (N, T)
    targets: Tensor,  # (N, T)
    *,
    gamma_pos: ByTask = 0.0,
    gamma_neg: ByTask = 0.0,
    clip: float = 0.0,
    poly: float = 0.0,
    smoothing: float = 0.0,
    pos_weight: ByTask = 1.0,
    neg_weight: ByTask = 1.0,
    shift: ByTask = 0.0,
    neg_scale: float = 1.0,
    weight: Tensor | None = None,  # (N, T)
    detach_focus: bool = False,
    reduction: str = "task",
) -> Tensor:
    """The loss of T binary tasks in the forms of multi-label classification, fused.

    With z = logit + shift, a positive is wrong by v = 1 - sigmoid(z) and a negative, beyond a
    margin, by v = max(sigmoid(neg_scale z) - clip, 0). An element's loss is, for y = 1 and y = 0,

        pos_weight v^gamma_pos (-log(1 - v) + poly v)
        neg_weight v^gamma_neg (-log(1 - v) + poly v) / neg_scale

    times its weight; of a label y between 0 and 1, so much of the one and the rest of the other. By
    default it is binary cross-entropy. The same power for both signs is the focal loss, with
    `pos_weight` = alpha and `neg_weight` = 1 - alpha its weighted form (Lin et al. 2017, eq. 5);
    two powers and `clip` are the asymmetric loss (Ridnik et al. 2021, eq. 7), `poly` is Poly-1
    (Leng et al. 2022, eq. 3), a `shift` by log-odds is logit adjustment (Menon et al. 2021,
    eq. 10), with `neg_scale` and `weight` the distribution-balanced loss (Wu et al. 2020, eq. 8).
    It is finite, with a finite gradient, for every finite margin. Only the logits have a gradient,
    and only a first one.

    Args:
        logits: float32, float64, bfloat16 or float16, with any strides.
        targets: 0 to 1, of any real or bool dtype; NaN means missing, and any other value makes the
            loss NaN.
        gamma_pos: the focusing parameter of positives, at least 0; one, or one a task.
        gamma_neg: likewise of negatives.
        clip: the probability up to which a negative costs nothing, in [0, 1).
        poly: the coefficient of the first term of the loss's series, added to it.
        smoothing: replaces y by y + smoothing (1/2 - y), in [0, 1).
        pos_weight: factor of positives; one, or one a task.
        neg_weight: likewise of negatives.
        shift: is added to the logits; one, or one a task.
        neg_scale: how steeply a negative's probability rises with its logit, > 0.
        weight: the elements' factors, bool or floating; 0 or False means missing.
        detach_focus: take v^gamma as a constant in the gradient, as the authors of the asymmetric
            loss train.
        reduction: as for `focal_loss`: over present labels, whose number the weights do not change.

    Shape:
        logits, targets, weight (N, T), a number of every task (T,); the loss (T,) for "task", ()
        for "sum" and "mean", (N, T) for "none", float64 for float64 logits and float32 otherwise.

    Raises:
        TypeError, ValueError: for arguments of the wrong type, dtype, shape, range or device. Of
            numbers in tensors the range is not checked; a power below 0 makes the loss NaN.

    Examples:
        >>> import torch
        >>> from fastmtl.ops import multilabel_loss
        >>> logits = torch.tensor([[0.0, 2.0], [1.0, -3.0]])
        >>> targets = torch.tensor([[1.0, 1.0], [0.0, float("nan")]])
        >>> multilabel_loss(logits, targets, gamma_neg=4, clip=0.05)
        tensor([0.4695, 0.1269])
    """
    numbers = (gamma_pos, gamma_neg, pos_weight, neg_weight, shift)
    tensors = (
        _tensor(gamma_pos),
        _tensor(gamma_neg),
        _tensor(pos_weight),
        _tensor(neg_weight),
        _tensor(shift),
    )
    same = [1.0 if isinstance(number, Tensor) else number for number in numbers]
    options = (*same, clip, poly, smoothing, neg_scale)
    _check(logits, targets, weight, *tensors, options, detach_focus, reduction)
    options = tuple(map(float, options))
    return _multilabel_loss(logits, targets, weight, *tensors, options, detach_focus, reduction)


def _tensor(number: ByTask) -> Tensor | None:
    return number if isinstance(number, Tensor) else None


def _check(
    logits: Tensor,
    targets: Tensor,
    weight: Tensor | None,
    gamma_pos: Tensor | None,
    gamma_neg: Tensor | None,
    pos_weight: Tensor | None,
    neg_weight: Tensor | None,
    shift: Tensor | None,
    options: Sequence[float],
    detach_focus: bool,
    reduction: str,
) -> None:
    _checks.need_floating("logits", logits)
    _checks.need_tensor("targets", targets)
    shape = tuple(logits.shape)
    if len(shape) != 2:
        raise ValueError(f"logits: expected shape (N, T), got {shape}")
    _checks.need_shape("targets", targets, shape, "the shape of logits (N, T)")
    if targets.dtype.is_complex:
        raise TypeError(f"targets: expected a real or bool dtype, got {targets.dtype}")
    _checks.need_device("targets", targets, "logits", logits)
    _checks.need_constant("targets", targets)
    if weight is not None:
        _checks.need_tensor("weight", weight)
        if weight.dtype != torch.bool and weight.dtype not in _checks.DTYPES:
            raise TypeError(f"weight: expected a bool or floating dtype, got {weight.dtype}")
        _checks.need_shape("weight", weight, shape, "the shape of logits (N, T)")
        _checks.need_device("weight", weight, "logits", logits)
        _checks.need_constant("weight", weight)
    tensors = (gamma_pos, gamma_neg, pos_weight, neg_weight, shift)
    for name, tensor in zip(MultilabelOptions._fields, tensors, strict=False):
        if tensor is not None:
            _checks.need_floating(name, tensor)
            _checks.need_shape(name, tensor, shape[1:], "one number a task (T,)")
            _checks.need_device(name, tensor, "logits", logits)
            _checks.need_constant(name, tensor)
    check_options(MultilabelOptions(*options))
    _checks.need_flag("detach_focus", detach_focus)
    _checks.need_choice("reduction", reduction, REDUCTIONS)


def check_options(options: MultilabelOptions) -> None:
    """Raise where an option is no number of its range."""
    for name in ("gamma_pos", "gamma_neg", "pos_weight", "neg_weight"):
        _checks.need_number(name, getattr(options, name))
    for name in ("shift", "poly"):
        _checks.need_number(name, getattr(options, name), above=-inf)
    for name in ("clip", "smoothing"):
        _checks.need_probability(name, getattr(options, name))
    _checks.need_number("neg_scale", options.neg_scale, above=0)


_multilabel_loss = FusedOp(reference.multilabel_loss, guard=_check)
