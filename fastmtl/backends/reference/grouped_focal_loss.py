"""Focal loss over groups of classes, in plain PyTorch.

Within a group, with label k and o = logsumexp of the other classes' logits, the softmax
probability of the label is p = sigmoid(x) with x = z_k - o: the binary formula serves. The
derivatives are dx/dz_k = 1 and dx/dz_c = -exp(z_c - o) for every other class c.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from fastmtl.backends.reference.precision import accumulation_dtype

MISSING = -100


def grouped_focal_loss(
    logits: Tensor,  # (N, sum C)
    targets: Tensor,  # (N, G)
    group_sizes: Sequence[int],
    class_weight: Tensor | None,  # (sum C,)
    gamma: float,
    reduction: str,
) -> Tensor:
    """The loss as autograd differentiates it; arguments as for `grouped_focal_loss_forward`."""
    z = logits.to(accumulation_dtype(logits.dtype))
    present = targets != MISSING
    columns = []
    weights = [None] * len(group_sizes) if class_weight is None else class_weight.split(group_sizes)
    for group, (scores, weight) in enumerate(zip(z.split(group_sizes, 1), weights, strict=True)):
        onehot, weight_of_label = _label(scores, targets[:, group], weight)
        x = scores.masked_fill(~onehot, 0).sum(1) - scores.masked_fill(
            onehot, -torch.inf
        ).logsumexp(1)
        log_p = logsigmoid(x)
        loss = -torch.exp(gamma * logsigmoid(-x)) * log_p if gamma else -log_p
        columns.append(loss * weight_of_label)
    loss = torch.where(present, torch.stack(columns, 1), 0)
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if reduction == "mean":
        return loss.sum() / present.sum().clamp(min=1)
    return loss.sum(0) / present.sum(0).clamp(min=1)


def grouped_focal_loss_forward(
    logits: Tensor,  # (N, sum C)
    targets: Tensor,  # (N, G)
    group_sizes: Sequence[int],
    class_weight: Tensor | None,  # (sum C,)
    gamma: float,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    """The reduced loss, and scale (G,): an element's factor in it, 0 where none is present."""
    loss = grouped_focal_loss(logits, targets, group_sizes, class_weight, gamma, reduction)
    present = targets != MISSING
    if reduction == "task":
        count = present.sum(0)
    elif reduction == "mean":
        count = present.sum().expand(len(group_sizes))
    else:
        count = torch.ones(len(group_sizes), device=logits.device)
    return loss, torch.where(count > 0, 1 / count.to(loss.dtype), 0)


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
    """The gradient with respect to the logits, (N, sum C), in their dtype."""
    z = logits.to(scale.dtype)
    present = targets != MISSING
    upstream = torch.where(present, (scale * grad_loss).expand(targets.shape), 0)  # (N, G)
    weights = [None] * len(group_sizes) if class_weight is None else class_weight.split(group_sizes)
    columns = []
    for group, (scores, weight) in enumerate(zip(z.split(group_sizes, 1), weights, strict=True)):
        onehot, weight_of_label = _label(scores, targets[:, group], weight)
        others = scores.masked_fill(onehot, -torch.inf)
        log_sum = others.logsumexp(1, keepdim=True)
        x = scores.masked_fill(~onehot, 0).sum(1, keepdim=True) - log_sum
        log_p, log_q = logsigmoid(x), logsigmoid(-x)
        p, q = torch.sigmoid(x), torch.sigmoid(-x)
        slope = torch.exp(gamma * log_q) * (gamma * p * log_p - q) if gamma else -q
        slope = slope * (upstream[:, group] * weight_of_label)[:, None]
        grad = torch.where(onehot, slope, -torch.exp(others - log_sum) * slope)
        columns.append(grad.masked_fill(~present[:, group, None], 0))
    return torch.cat(columns, 1).to(logits.dtype)


def _label(scores: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """One-hot of the label (N, C), and its weight (N,): NaN for a label that is no class.

    A missing label is counted as class 0; its results are masked by the caller.
    """
    classes = scores.shape[1]
    label = torch.where(target == MISSING, 0, target)
    known = (label >= 0) & (label < classes)
    label = torch.where(known, label, 0)
    onehot = torch.arange(classes, device=scores.device) == label[:, None]
    factor = torch.ones_like(scores[:, 0]) if weight is None else weight.to(scores.dtype)[label]
    return onehot, torch.where(known, factor, torch.nan)
