"""The reductions of the losses and of norms."""

from __future__ import annotations

import torch
from torch import Tensor


def reduced(
    loss: Tensor,  # (N, T), 0 where missing
    present: Tensor,  # (N, T)
    reduction: str,
) -> Tensor:
    """The loss as `fastmtl.ops.focal_loss` returns it."""
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if reduction == "mean":
        return loss.sum() / present.sum().clamp(min=1)
    return loss.sum(0) / present.sum(0).clamp(min=1)


def row_norms(rows: Tensor) -> Tensor:
    """The 2-norms of (R, C), (R,), also of those whose squares the dtype cannot hold."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    return norms.to(rows.dtype)


def element_scale(
    present: Tensor,  # (N, T)
    reduction: str,
    dtype: torch.dtype,
) -> Tensor:
    """An element's factor in the reduced loss, (T,); 0 where none is present."""
    if reduction == "task":
        count = present.sum(0)
    elif reduction == "mean":
        count = present.sum().expand(present.shape[1])
    else:
        count = torch.ones(present.shape[1], device=present.device)
    return torch.where(count > 0, 1 / count.to(dtype), 0)
