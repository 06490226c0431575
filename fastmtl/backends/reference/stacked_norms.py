"""Norms over the leading dimension of stacked tensors, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from fastmtl.backends.precision import accumulation_dtype
from fastmtl.backends.reference._reduction import row_norms


def stacked_norms(
    stacked: Sequence[Tensor],  # each (T, ...)
) -> Tensor:
    """The 2-norm of each task's slices over all the tensors together, (T,)."""
    rows = [
        part.to(accumulation_dtype(part.dtype)).reshape(part.shape[0], prod(part.shape[1:]))
        for part in stacked
    ]
    return row_norms(torch.cat(rows, 1))


def stacked_norms_forward(stacked: Sequence[Tensor]) -> Tensor:
    """As `stacked_norms`."""
    return stacked_norms(stacked)


def stacked_norms_backward(
    grad: Tensor,  # (T,)
    norms: Tensor,  # (T,)
    stacked: Sequence[Tensor],  # each (T, ...)
) -> list[Tensor]:
    """Gradients with respect to every tensor; 0 for a task whose norm is 0."""
    factor = torch.where(norms == 0, 0, grad / norms)
    return [(part * factor.view(-1, *[1] * (part.dim() - 1))).to(part.dtype) for part in stacked]
