"""Norms of gradients that are stacked by task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastmtl import backends
from fastmtl.backends import reference
from fastmtl.ops import _checks
from fastmtl.ops._autograd import once_differentiable


def stacked_norms(
    stacked: Tensor | Sequence[Tensor],  # (T, ...)
) -> Tensor:
    """The 2-norm of each task's slice of a stacked tensor, or of several together.

        G_j = sqrt(sum_k ||X_k[j]||^2)

    for X_k of shape (T, ...), all of one dtype: the norms of the gradients of parameters that are
    stacked by task. Returns (T,): float64 for float64, float32 otherwise. Differentiable once; the
    gradient at a zero norm is 0.

    Raises TypeError or ValueError for arguments of the wrong type, dtype, shape or device.

    Example:
        >>> import torch
        >>> from fastmtl.ops import stacked_norms
        >>> stacked_norms([torch.ones(2, 3, 3), torch.tensor([[4.0], [0.0]])])
        tensor([5., 3.])
    """
    parts = _check(stacked)
    if _checks.traced(parts[0]):
        norms: Tensor = _stacked_norms(parts)
        return norms
    kernels = backends.kernels("stacked_norms", parts[0].device)
    if kernels is reference:
        return reference.stacked_norms(parts)
    result: Tensor = _StackedNorms.apply(kernels, *parts)
    return result


def _check(stacked: Tensor | Sequence[Tensor]) -> list[Tensor]:
    parts = [stacked] if isinstance(stacked, Tensor) else list(stacked)
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
    return parts


class _StackedNorms(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernels: Any, *parts: Tensor) -> Tensor:
        norms: Tensor = kernels.stacked_norms_forward(parts)
        ctx.save_for_backward(norms, *parts)
        ctx.kernels = kernels
        return norms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        norms, *parts = ctx.saved_tensors
        return None, *ctx.kernels.stacked_norms_backward(grad, norms, parts)


@torch.library.custom_op("fastmtl::stacked_norms", mutates_args=())
def _stacked_norms(stacked: Sequence[Tensor]) -> Tensor:
    kernels = backends.kernels("stacked_norms", stacked[0].device)
    result: Tensor = kernels.stacked_norms_forward(stacked)
    return result


@torch.library.custom_op("fastmtl::stacked_norms_backward", mutates_args=())
def _stacked_norms_backward(grad: Tensor, norms: Tensor, stacked: Sequence[Tensor]) -> list[Tensor]:
    kernels = backends.kernels("stacked_norms", stacked[0].device)
    result: list[Tensor] = kernels.stacked_norms_backward(grad, norms, stacked)
    return result


@_stacked_norms.register_fake
def _(stacked: Sequence[Tensor]) -> Tensor:
    dtype = reference.accumulation_dtype(stacked[0].dtype)
    return stacked[0].new_empty(stacked[0].shape[0], dtype=dtype)


@_stacked_norms_backward.register_fake
def _(grad: Tensor, norms: Tensor, stacked: Sequence[Tensor]) -> list[Tensor]:
    return [part.new_empty(part.shape) for part in stacked]


def _setup(ctx: Any, inputs: tuple[list[Tensor]], output: Tensor) -> None:
    ctx.save_for_backward(output, *inputs[0])


def _differentiate(ctx: Any, grad: Tensor) -> Any:
    norms, *parts = ctx.saved_tensors
    return _stacked_norms_backward(grad, norms, parts)


_stacked_norms.register_autograd(_differentiate, setup_context=_setup)
