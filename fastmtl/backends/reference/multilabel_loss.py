"""Multi-label loss in plain PyTorch.

The margin of a logit z is x = z + shift for the label 1 and x = -neg_scale (z + shift) for the
label 0. With q = sigmoid(-x), and v = q for the label 1 or v = max(q - clip, 0) for the label 0,
the loss of a label is v^gamma (poly v - log(1 - v)), and its derivative with respect to x is

    -v^gamma (gamma (p q / v) (poly v - log(1 - v)) + p q / (1 - v) + poly p q),  p = 1 - q.

A label between 0 and 1 is so much of the one and the rest of the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from fastmtl.backends.losses import MultilabelOptions
from fastmtl.backends.precision import accumulation_dtype
from fastmtl.backends.reference._reduction import element_scale, reduced


def multilabel_loss(
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
    """The loss as autograd differentiates it; arguments as for `multilabel_loss_forward`."""
    dtype, o = accumulation_dtype(logits.dtype), MultilabelOptions(*options)
    y, present, share = _labels(targets, weight, o.smoothing, dtype)
    z = torch.where(present, logits.to(dtype) + _of(shift, o.shift, dtype), 0)
    pos = _side(z, _of(gamma_pos, o.gamma_pos, dtype), 0.0, o.poly, detach_focus)
    neg = _side(-o.neg_scale * z, _of(gamma_neg, o.gamma_neg, dtype), o.clip, o.poly, detach_focus)
    pos = y * _of(pos_weight, o.pos_weight, dtype) * pos
    neg = (1 - y) * _of(neg_weight, o.neg_weight, dtype) / o.neg_scale * neg
    loss = share * (torch.where(y > 0, pos, 0) + torch.where(y < 1, neg, 0))
    return reduced(_checked(loss, y, present), present, reduction)


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
    """The reduced loss, and scale (T,): an element's factor in it, 0 where none is present."""
    loss = multilabel_loss(
        logits,
        targets,
        weight,
        gamma_pos,
        gamma_neg,
        pos_weight,
        neg_weight,
        shift,
        options,
        detach_focus,
        reduction,
    )
    present = _labels(targets, weight, 0.0, loss.dtype)[1]
    return loss, element_scale(present, reduction, loss.dtype)


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
    """The gradient with respect to the logits, (N, T), in their dtype."""
    dtype, o = scale.dtype, MultilabelOptions(*options)
    y, present, share = _labels(targets, weight, o.smoothing, dtype)
    z = logits.to(dtype) + _of(shift, o.shift, dtype)
    pos = _slope(z, _of(gamma_pos, o.gamma_pos, dtype), 0.0, o.poly, detach_focus)
    neg = _slope(-o.neg_scale * z, _of(gamma_neg, o.gamma_neg, dtype), o.clip, o.poly, detach_focus)
    pos = y * _of(pos_weight, o.pos_weight, dtype) * pos
    neg = (1 - y) * _of(neg_weight, o.neg_weight, dtype) * neg
    slope = share * (torch.where(y > 0, pos, 0) - torch.where(y < 1, neg, 0))
    return _checked(slope * scale * grad_loss, y, present).to(logits.dtype)


def _of(tasks: Tensor | None, same: float, dtype: torch.dtype) -> Tensor | float:
    """A number of every task, or of all."""
    return same if tasks is None else tasks.to(dtype)


def _labels(
    targets: Tensor, weight: Tensor | None, smoothing: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor | float]:
    """Labels, 0 where missing, which of them are present, and their weights."""
    y = targets.to(dtype)
    present, share = ~y.isnan(), torch.ones((), dtype=dtype, device=y.device)
    if weight is not None:
        present, share = present & (weight != 0), weight.to(dtype)
    return torch.where(present, y + smoothing * (0.5 - y), 0), present, share


def _checked(values: Tensor, y: Tensor, present: Tensor) -> Tensor:
    """NaN where a label is not from 0 to 1, and 0 where it is missing."""
    return torch.where(present, torch.where((y >= 0) & (y <= 1), values, torch.nan), 0)


def _wrong(x: Tensor, clip: float) -> tuple[Tensor, Tensor, Tensor]:
    """v, -log(1 - v) and log v; where v is 0, the last is any number."""
    log_p, log_q = logsigmoid(x), logsigmoid(-x)
    # The derivative of exp has all its digits, that of sigmoid has not where it is small.
    if not clip:
        return log_q.exp(), -log_p, log_q
    v = (log_q.exp() - clip).clamp(min=0)
    small = v < 0.5
    loss = -torch.where(small, torch.log1p(-torch.where(small, v, 0)), (log_p.exp() + clip).log())
    return v, loss, torch.where(v == 0, 1, v).log()


def _power(log_v: Tensor, gamma: Tensor | float) -> Tensor:
    """v^gamma; NaN for a gamma below 0."""
    if isinstance(gamma, Tensor):
        return torch.exp(torch.where(gamma >= 0, gamma, torch.nan) * log_v)
    return torch.exp(gamma * log_v) if gamma else torch.ones_like(log_v)


def _side(x: Tensor, gamma: Tensor | float, clip: float, poly: float, detach: bool) -> Tensor:
    """The loss of a margin."""
    v, loss, log_v = _wrong(x, clip)
    power = _power(log_v, gamma)
    return (power.detach() if detach else power) * (loss + poly * v)


def _slope(x: Tensor, gamma: Tensor | float, clip: float, poly: float, detach: bool) -> Tensor:
    """Its derivative with respect to the margin."""
    v, loss, log_v = _wrong(x, clip)
    p, q = torch.sigmoid(x), torch.sigmoid(-x)
    inside = p * q / torch.where(v == 0, 1, v) if clip else p
    outside = p * q / (p + clip) if clip else q
    focused = 0 if detach else gamma * inside * (loss + poly * v)
    slope = -_power(log_v, gamma) * (focused + outside + poly * p * q)
    return torch.where(v == 0, 0, slope) if clip else slope
