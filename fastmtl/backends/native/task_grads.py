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
    if "task_grads_squares" in memory.module(inputs).kernels:
        return task_grads.norms(inputs, grad_outputs, row_dots, _squares, _triangle)
    return task_grads.norms(inputs, grad_outputs, row_dots)


def task_grad_gramian_forward(
    inputs: Tensor,  # (N, I) or (T, N, I)
    grad_outputs: Tensor,  # (T, N, O)
) -> Tensor:
    if "task_grads_pairs" in memory.module(inputs).kernels:
        return task_grads.gramian(inputs, grad_outputs, _pairs, _triangle)
    return task_grads.gramian(inputs, grad_outputs)


def _triangle(inputs: Tensor) -> Tensor:
    *matrices, samples, features = inputs.shape
    dtype = accumulation_dtype(inputs.dtype)
    out = inputs.new_empty(*matrices, samples, samples, dtype=dtype)
    memory.module(inputs).task_grads_triangle(
        memory.execution(inputs),
        memory.DTYPES[inputs.dtype],
        memory.address(inputs),
        prod(matrices),
        samples,
        features,
        out.data_ptr(),
    )
    return out


def _squares(grads: Tensor, half_kernel: Tensor, out: Tensor) -> None:
    memory.module(grads).task_grads_squares(
        memory.execution(grads),
        memory.DTYPES[grads.dtype],
        memory.address(grads),
        half_kernel.data_ptr(),
        0 if half_kernel.dim() == 2 else half_kernel.stride(0),
        *grads.shape,
        out.data_ptr(),
    )


def _pairs(grads: Tensor, half_kernel: Tensor) -> Tensor:
    out = half_kernel.new_empty(len(grads), len(grads))
    memory.module(grads).task_grads_pairs(
        memory.execution(grads),
        memory.DTYPES[grads.dtype],
        memory.address(grads),
        half_kernel.data_ptr(),
        *grads.shape,
        out.data_ptr(),
    )
    return out
