"""Focal loss over groups of classes, in plain PyTorch.

Within a group, with label k and o = logsumexp of the other classes' logits, the softmax
probability of the label is p = sigmoid(x) with x = z_k - o: the binary formula serves. The
derivatives are dx/dz_k = 1 and dx/dz_c = -exp(z_c - o) for every other class c.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from fastmtl.backends.precision import accumulation_dtype
from fastmtl.backends.reference._reduction import element_scale, reduced


def grouped_focal_loss(
    logits: Tensor,  # (N, sum C)
    targets: Tensor,  # (N, G)
    weight: Tensor | None,  # (sum C,)
    group_sizes: Sequence[int],
    ignore_index: int,
    gamma: float,
    reduction: str,
) -> Tensor:
    """The loss as autograd differentiates it; arguments as for `grouped_focal_loss_forward`."""
    z = logits.to(accumulation_dtype(logits.dtype))
    present = targets != ignore_index
    columns = []
    for scores, target, own in _groups(z, targets, weight, group_sizes):
        onehot, factor = _label(scores, target, ignore_index, own)
        x = scores.masked_fill(~onehot, 0).sum(1) - _log_sum(scores, onehot).squeeze(1)
        log_p = logsigmoid(x)
        loss = -torch.exp(gamma * logsigmoid(-x)) * log_p if gamma else -log_p
        columns.append(loss * factor)
    return reduced(torch.where(present, torch.stack(columns, 1), 0), present, reduction)


def grouped_focal_loss_forward(
    logits: Tensor,  # (N, sum C)
    targets: Tensor,  # (N, G)
    weight: Tensor | None,  # (sum C,)
    group_sizes: Sequence[int],
    ignore_index: int,
    gamma: float,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    """The reduced loss, and scale (G,): an element's factor in it, 0 where none is present."""
    loss = grouped_focal_loss(logits, targets, weight, group_sizes, ignore_index, gamma, reduction)
    return loss, element_scale(targets != ignore_index, reduction, loss.dtype)


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
    """The gradient with respect to the logits, (N, sum C), in their dtype."""
    z = logits.to(scale.dtype)
    present = targets != ignore_index
    upstream = torch.where(present, (scale * grad_loss).expand(targets.shape), 0)  # (N, G)
    columns = []
    for group, (scores, target, own) in enumerate(_groups(z, targets, weight, group_sizes)):
        onehot, factor = _label(scores, target, ignore_index, own)
        log_sum = _log_sum(scores, onehot)
        others = scores.masked_fill(onehot, -torch.inf)
        x = scores.masked_fill(~onehot, 0).sum(1, keepdim=True) - log_sum
        log_p, log_q = logsigmoid(x), logsigmoid(-x)
        p, q = torch.sigmoid(x), torch.sigmoid(-x)
        slope = torch.exp(gamma * log_q) * (gamma * p * log_p - q) if gamma else -q
        slope = slope * (upstream[:, group] * factor)[:, None]
        grad = torch.where(
            onehot, slope, -torch.exp(others - log_sum.clamp(min=torch.finfo(z.dtype).min)) * slope
        )
        columns.append(grad.masked_fill(~present[:, group, None], 0))
    return torch.cat(columns, 1).to(logits.dtype)


def _groups(
    z: Tensor, targets: Tensor, weight: Tensor | None, group_sizes: Sequence[int]
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """For every group its scores (N, C), targets (N,) and weights (C,)."""
    sizes = list(group_sizes)
    weights = [None] * len(sizes) if weight is None else weight.split(sizes)
    return zip(z.split(sizes, 1), targets.unbind(1), weights, strict=True)


def _log_sum(scores: Tensor, onehot: Tensor) -> Tensor:
    """logsumexp of the other classes' scores, (N, 1); where it is -inf its derivative is 0."""
    others = scores.masked_fill(onehot, -torch.inf)
    excluded = (others == -torch.inf).all(1, keepdim=True)
    return (
        others.masked_fill(excluded, 0).logsumexp(1, keepdim=True).masked_fill(excluded, -torch.inf)
    )


def _label(
    scores: Tensor, target: Tensor, ignore_index: int, weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    """One-hot of the label (N, C), and its weight (N,): NaN for a label that is no class.

    A missing label is counted as class 0; its results are masked by the caller.
    """
    classes = scores.shape[1]
    label = torch.where(target == ignore_index, 0, target)
    known = (label >= 0) & (label < classes)
    label = torch.where(known, label, 0)
    onehot = torch.arange(classes, device=scores.device) == label[:, None]
    factor = torch.ones_like(scores[:, 0]) if weight is None else weight.to(scores.dtype)[label]
    return onehot, torch.where(known, factor, torch.nan)
