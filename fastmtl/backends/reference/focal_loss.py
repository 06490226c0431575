"""Focal multi-task loss in plain PyTorch.

With x = (2y - 1) z, p = sigmoid(x) and q = 1 - p, an element's loss is -q^gamma log p and its
derivative dloss/dx = q^gamma (gamma p log p - q). Everything is computed from log p = -softplus(-x)
and log q = -softplus(x), so it is finite for every finite logit.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from fastmtl.backends.precision import accumulation_dtype
from fastmtl.backends.reference._reduction import element_scale, reduced


def focal_loss(
    logits: Tensor,  # (N, T)
    targets: Tensor,  # (N, T)
    mask: Tensor | None,  # (N, T)
    pos_weight: Tensor | None,  # (T,)
    gamma: float,
    reduction: str,
) -> Tensor:
    """The loss as autograd differentiates it; arguments as for `focal_loss_forward`."""
    present, positive = _labels(targets, mask)
    z = torch.where(present, logits.to(accumulation_dtype(logits.dtype)), 0)
    x = torch.where(positive, z, -z)
    log_p = logsigmoid(x)
    loss = -torch.exp(gamma * logsigmoid(-x)) * log_p if gamma else -log_p
    loss = torch.where(present, _weigh(loss, targets, positive, pos_weight), 0)
    return reduced(loss, present, reduction)


def focal_loss_forward(
    logits: Tensor,  # (N, T)
    targets: Tensor,  # (N, T)
    mask: Tensor | None,  # (N, T)
    pos_weight: Tensor | None,  # (T,)
    gamma: float,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    """The reduced loss, and scale (T,): an element's factor in it, 0 where none is present."""
    loss = focal_loss(logits, targets, mask, pos_weight, gamma, reduction)
    return loss, element_scale(_labels(targets, mask)[0], reduction, loss.dtype)


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
    """The gradient with respect to the logits, (N, T), in their dtype."""
    z = logits.to(scale.dtype)
    present, positive = _labels(targets, mask)
    x = torch.where(positive, z, -z)
    log_p, log_q = logsigmoid(x), logsigmoid(-x)
    p, q = torch.sigmoid(x), torch.sigmoid(-x)
    slope = torch.exp(gamma * log_q) * (gamma * p * log_p - q) if gamma else -q
    slope = _weigh(torch.where(positive, slope, -slope), targets, positive, pos_weight)
    return torch.where(present, slope * scale * grad_loss, 0).to(logits.dtype)


def _labels(targets: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Which labels are present, and which of them are positive."""
    present = torch.ones_like(targets, dtype=torch.bool) if mask is None else mask
    if targets.is_floating_point():
        present = present & ~targets.isnan()
    return present, targets == 1


def _weigh(values: Tensor, targets: Tensor, positive: Tensor, pos_weight: Tensor | None) -> Tensor:
    """Scale the positives, and turn elements whose target is neither 0 nor 1 into NaN."""
    if pos_weight is not None:
        values = torch.where(positive, values * pos_weight.to(values.dtype), values)
    return torch.where(positive | (targets == 0), values, torch.nan)
