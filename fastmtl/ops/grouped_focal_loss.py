"""Focal loss over groups of mutually exclusive classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastmtl import _checks
from fastmtl._deprecation import deprecated
from fastmtl.backends.reference import grouped_focal_loss as reference
from fastmtl.ops._op import FusedOp
from fastmtl.ops.focal_loss import REDUCTIONS


def grouped_focal_loss(
    logits: Tensor,  # (N, sum C)
    targets: Tensor,  # (N, G)
    group_sizes: Sequence[int],
    *,
    gamma: float = 2.0,
    weight: Tensor | None = None,  # (sum C,)
    ignore_index: int = -100,
    reduction: str = "task",
    class_weight: Tensor | None = None,  # (sum C,)
) -> Tensor:
    """Focal loss of G multi-class tasks, each a softmax over its own group of columns, fused.

    Group g owns the next `group_sizes[g]` columns of the logits. With p the softmax probability of
    the label within its group, an element's loss is

        -(1 - p)^gamma log p

    (Lin et al. 2017, eq. 4, over a softmax); gamma = 0 is cross-entropy, to rounding. It is
    computed as the binary loss of the margin x = z_label - logsumexp(other logits), since
    p = sigmoid(x). Only the logits have a gradient, and only a first one.

    Args:
        logits: float32, float64, bfloat16 or float16, with any strides.
        targets: int64, counted from 0 within the group; a value that is no class, nor
            `ignore_index`, makes the loss NaN.
        group_sizes: C_g, the number of classes of each group, at least 2.
        gamma: the focusing parameter, at least 0.
        weight: multiplies the loss of the samples with that label; the mean is over the number of
            samples, not of weights.
        ignore_index: the target that means missing.
        reduction: as in `focal_loss`: "task", "sum", "mean" or "none".
        class_weight: the former name of `weight`, deprecated.

    Shape:
        logits (N, sum C), targets (N, G), weight (sum C,); the loss (G,) for "task", () for "sum"
        and "mean", (N, G) for "none", float64 for float64 logits and float32 otherwise.

    Raises:
        TypeError, ValueError: for arguments of the wrong type, dtype, shape or device.

    Examples:
        >>> import torch
        >>> from fastmtl.ops import grouped_focal_loss
        >>> logits = torch.tensor([[2.0, 0.0, 1.0, 0.0, -1.0]])  # a pair, and a group of three
        >>> grouped_focal_loss(logits, torch.tensor([[0, -100]]), [2, 3])
        tensor([0.0018, 0.0000])
    """
    if class_weight is not None:
        if weight is not None:
            raise TypeError("class_weight: is the former name of weight, got both")
        deprecated("grouped_focal_loss: class_weight given as in an older version; use weight")
        weight = class_weight
    try:
        sizes = [int(size) for size in group_sizes]
    except (TypeError, ValueError) as error:
        raise TypeError(f"group_sizes: expected a list of sizes, got {group_sizes!r}") from error
    _check(logits, targets, weight, sizes, ignore_index, gamma, reduction)
    return _grouped_focal_loss(
        logits, targets, weight, sizes, ignore_index, float(gamma), reduction
    )


def _check(
    logits: Tensor,
    targets: Tensor,
    weight: Tensor | None,
    sizes: Sequence[int],
    ignore_index: int,
    gamma: float,
    reduction: str,
) -> None:
    _checks.need_floating("logits", logits)
    _checks.need_tensor("targets", targets)
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
    if isinstance(ignore_index, bool) or not isinstance(ignore_index, int):
        raise TypeError(f"ignore_index: expected an int, got {ignore_index!r}")
    if weight is not None:
        _checks.need_floating("weight", weight)
        _checks.need_shape("weight", weight, (sum(sizes),), "one weight a class")
        _checks.need_device("weight", weight, "logits", logits)
        _checks.need_constant("weight", weight)


_grouped_focal_loss = FusedOp(reference.grouped_focal_loss, guard=_check)
