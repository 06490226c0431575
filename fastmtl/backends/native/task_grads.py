"""Gradient norms and Gramians, by the native kernels."""

from __future__ import annotations

from math import prod

from torch import Tensor

from fastmtl.backends import task_grads
from fastmtl.backends.native import memory
from fastmtl.backends.native.stacked_norms import row_dots
from fastmtl.backends.precision import accumulation_dtype
from fastmtl.backends.reference.task_grads import (
    task_grad_gramian_backward,
    task_grad_norms_backward,
)

__all__ = [
    "task_grad_gramian_backward",
    "task_grad_gramian_forward",
    "task_grad_norms_backward",
    "task_grad_norms_forward",
]


def task_grad_norms_forward(
    inputs: Tensor,  # (N, I) or (T, N, I)
    grad_outputs: Tensor,  # (T, N, O)
) -> Tensor:
    own = "task_grads_squares" in memory.module(inputs).kernels
    return task_grads.norms(inputs, grad_outputs, row_dots, _squares if own else None)


def task_grad_gramian_forward(
    inputs: Tensor,  # (N, I) or (T, N, I)
    grad_outputs: Tensor,  # (T, N, O)
) -> Tensor:
    own = "task_grads_pairs" in memory.module(inputs).kernels
    return task_grads.gramian(inputs, grad_outputs, _pairs if own else None)


def _triangle(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """H of inputs divided by a scale, (N, N) or (T, N, N), and the scale, (1,) or (T,)."""
    *matrices, samples, features = inputs.shape
    dtype = accumulation_dtype(inputs.dtype)
    out = inputs.new_empty(*matrices, samples, samples, dtype=dtype)
    scale = inputs.new_empty(prod(matrices), dtype=dtype)
    memory.module(inputs).task_grads_triangle(
        memory.execution(inputs),
        memory.DTYPES[inputs.dtype],
        memory.address(inputs),
        prod(matrices),
        samples,
        features,
        scale.data_ptr(),
        out.data_ptr(),
    )
    return out, scale


def _squares(inputs: Tensor, grads: Tensor, out: Tensor) -> None:
    half_kernel, scale = _triangle(inputs)
    memory.module(grads).task_grads_squares(
        memory.execution(grads),
        memory.DTYPES[grads.dtype],
        memory.address(grads),
        half_kernel.data_ptr(),
        scale.data_ptr(),
        len(scale),
        *grads.shape,
        out.data_ptr(),
    )


def _pairs(inputs: Tensor, grads: Tensor) -> Tensor:
    half_kernel, scale = _triangle(inputs)
    out = half_kernel.new_empty(len(grads), len(grads))
    memory.module(grads).task_grads_pairs(
        memory.execution(grads),
        memory.DTYPES[grads.dtype],
        memory.address(grads),
        half_kernel.data_ptr(),
        scale.data_ptr(),
        *grads.shape,
        out.data_ptr(),
    )
    return out
