"""Gradient norms and Gramians: sums of products in Triton, matrix products in torch."""

from __future__ import annotations

from torch import Tensor

from fastmtl.backends import task_grads
from fastmtl.backends.reference.task_grads import (
    task_grad_gramian_backward,
    task_grad_norms_backward,
)
from fastmtl.backends.triton.stacked_norms import row_dots

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
    return task_grads.norms(inputs, grad_outputs, row_dots)


def task_grad_gramian_forward(
    inputs: Tensor,  # (N, I) or (T, N, I)
    grad_outputs: Tensor,  # (T, N, O)
) -> Tensor:
    return task_grads.gramian(inputs, grad_outputs)
