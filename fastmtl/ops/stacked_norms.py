"""Norms of gradients that are stacked by task."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fastmtl import _checks
from fastmtl.backends.reference import stacked_norms as reference
from fastmtl.ops._op import FusedOp


def stacked_norms(
    stacked: Tensor | Sequence[Tensor],  # (T, ...)
) -> Tensor:
    """The 2-norm of each task's slice of a stacked tensor, or of several together.

        G_j = sqrt(sum_k ||X_k[j]||^2)

    the norms of the gradients of parameters that are stacked by task. Differentiable once; the
    gradient at a zero norm is 0.

    Args:
        stacked: one X, or several of the same dtype.

    Shape:
        each X_k (T, ...); the norms (T,), float64 for float64 and float32 otherwise.

    Raises:
        TypeError, ValueError: for arguments of the wrong type, dtype, shape or device.

    Examples:
        >>> import torch
        >>> from fastmtl.ops import stacked_norms
        >>> stacked_norms([torch.ones(2, 3, 3), torch.tensor([[4.0], [0.0]])])
        tensor([5., 3.])
    """
    parts = [stacked] if isinstance(stacked, Tensor) else list(stacked)
    _check(parts)
    return _stacked_norms(parts)


def _check(parts: Sequence[Tensor]) -> None:
    if not parts:
        raise ValueError("stacked: expected a (T, ...) tensor or a list of them, got an empty list")
    first = parts[0]
    for index, part in enumerate(parts):
        name = f"stacked[{index}]"
        _checks.need_floating(name, part)
        if part.dim() < 1 or part.shape[0] != first.shape[0]:
            raise ValueError(
                f"{name}: expected shape (T, ...) with the T of stacked[0], {tuple(first.shape)}, "
                f"got {tuple(part.shape)}"
            )
        _checks.need_device(name, part, "stacked[0]", first)
        _checks.need_dtype(name, part, "stacked[0]", first)


_stacked_norms = FusedOp(reference.stacked_norms, guard=_check)
