"""Gradient norms and Gramians, by the native kernels."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from fastmtl.backends import gram
from fastmtl.backends.native import memory
from fastmtl.backends.reference import accumulation_dtype


def task_grad_norms_forward(
    inputs: Tensor,  # (N, I) or (T, N, I)
    grad_outputs: Tensor,  # (T, N, O)
) -> Tensor:
    if "task_grads_squares" in memory.module(inputs).kernels:
        return gram.norms(inputs, grad_outputs, _row_dots, _gram_squares, _gram_triangle)
    return gram.norms(inputs, grad_outputs, _row_dots)


def task_grad_gramian_forward(
    inputs: Tensor,  # (N, I) or (T, N, I)
    grad_outputs: Tensor,  # (T, N, O)
) -> Tensor:
    if "task_grads_pairs" in memory.module(inputs).kernels:
        return gram.gramian(inputs, grad_outputs, _gram_pairs, _gram_triangle)
    return gram.gramian(inputs, grad_outputs)


def stacked_norms_forward(
    stacked: Sequence[Tensor],  # each (T, ...)
) -> Tensor:
    first = stacked[0]
    squares = first.new_zeros(first.shape[0], dtype=accumulation_dtype(first.dtype))
    for part in stacked:
        rows = part.reshape(part.shape[0], -1).contiguous() if part.numel() else None
        if rows is not None:
            _row_dots(rows, rows, squares, True)
    return squares.sqrt_()


def stacked_norms_backward(
    grad: Tensor,  # (T,)
    norms: Tensor,  # (T,)
    stacked: Sequence[Tensor],  # each (T, ...)
) -> list[Tensor]:
    factor = torch.where(norms > 0, grad / norms, 0)
    grads = []
    for part in stacked:
        result = torch.empty_like(part, memory_format=torch.contiguous_format)
        if part.numel():
            rows = part.reshape(part.shape[0], -1).contiguous()
            memory.module(rows).scale_rows(
                memory.execution(rows),
                memory.matrix(rows),
                factor.data_ptr(),
                *rows.shape,
                result.data_ptr(),
            )
        grads.append(result)
    return grads


def least_norm_weights_forward(
    gramian: Tensor,  # (T, T)
    iterations: int,
) -> Tensor:
    gramian = gramian.contiguous()
    out = gramian.new_empty(len(gramian))
    memory.module(gramian).least_norm_weights(
        memory.execution(gramian),
        memory.DTYPES[gramian.dtype],
        gramian.data_ptr(),
        len(gramian),
        iterations,
        out.data_ptr(),
    )
    return out


def _row_dots(a: Tensor, b: Tensor, out: Tensor, accumulate: bool) -> None:
    workspace = memory.workspace("row_dots", a, *a.shape)
    memory.module(a).row_dots(
        memory.execution(a, workspace),
        memory.matrix(a),
        memory.matrix(b),
        *a.shape,
        accumulate,
        out.data_ptr(),
    )


def _gram_triangle(inputs: Tensor) -> Tensor:
    *matrices, samples, features = inputs.shape
    dtype = accumulation_dtype(inputs.dtype)
    out = inputs.new_empty(*matrices, samples, samples, dtype=dtype)
    memory.module(inputs).task_grads_triangle(
        memory.execution(inputs),
        memory.DTYPES[inputs.dtype],
        inputs.data_ptr(),
        prod(matrices),
        samples,
        features,
        out.data_ptr(),
    )
    return out


def _gram_squares(grads: Tensor, half_kernel: Tensor, out: Tensor) -> None:
    memory.module(grads).task_grads_squares(
        memory.execution(grads),
        memory.DTYPES[grads.dtype],
        grads.data_ptr(),
        half_kernel.data_ptr(),
        0 if half_kernel.dim() == 2 else half_kernel.stride(0),
        *grads.shape,
        out.data_ptr(),
    )


def _gram_pairs(grads: Tensor, half_kernel: Tensor) -> Tensor:
    out = half_kernel.new_empty(len(grads), len(grads))
    memory.module(grads).task_grads_pairs(
        memory.execution(grads),
        memory.DTYPES[grads.dtype],
        grads.data_ptr(),
        half_kernel.data_ptr(),
        *grads.shape,
        out.data_ptr(),
    )
    return out
