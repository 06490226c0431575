"""Per-task gradient norms and Gramian of a linear map, in plain PyTorch.

For y = x W^T and d_j = dL_j/dy, dL_j/dW = d_j^T x: the gradients are materialised one by one.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from fastmtl.backends.precision import accumulation_dtype, full_precision


def task_grad_norms(
    inputs: Tensor,  # (N, I) or (T, N, I)
    grad_outputs: Tensor,  # (T, N, O)
) -> Tensor:
    """||dL_j/dW||_F for every task, (T,)."""
    return cast(Tensor, torch.linalg.vector_norm(_weight_grads(inputs, grad_outputs), dim=1))


def task_grad_gramian(
    inputs: Tensor,  # (N, I) or (T, N, I)
    grad_outputs: Tensor,  # (T, N, O)
) -> Tensor:
    """<dL_i/dW, dL_j/dW> for every pair of tasks, (T, T)."""
    grads = _weight_grads(inputs, grad_outputs)
    with full_precision(grads.device):
        return grads @ grads.T


def task_grad_norms_forward(inputs: Tensor, grad_outputs: Tensor) -> Tensor:
    """As `task_grad_norms`."""
    return task_grad_norms(inputs, grad_outputs)


def task_grad_gramian_forward(inputs: Tensor, grad_outputs: Tensor) -> Tensor:
    """As `task_grad_gramian`."""
    return task_grad_gramian(inputs, grad_outputs)


def task_grad_norms_backward(
    grad: Tensor,  # (T,)
    norms: Tensor,  # (T,)
    inputs: Tensor,  # (N, I) or (T, N, I)
    grad_outputs: Tensor,  # (T, N, O)
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to both inputs; 0 for a task whose norm is 0."""
    coefficients = torch.diag(torch.where(norms > 0, grad / norms, 0))
    return _quadratic_backward(coefficients, inputs, grad_outputs)


def task_grad_gramian_backward(
    grad: Tensor,  # (T, T)
    inputs: Tensor,  # (N, I) or (T, N, I)
    grad_outputs: Tensor,  # (T, N, O)
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to both inputs."""
    return _quadratic_backward(grad + grad.T, inputs, grad_outputs)


def _weight_grads(inputs: Tensor, grad_outputs: Tensor) -> Tensor:
    """dL_j/dW flattened, (T, O * I)."""
    dtype = accumulation_dtype(inputs.dtype)
    x, d = inputs.to(dtype), grad_outputs.to(dtype)
    with full_precision(x.device):
        return (d.mT @ x).reshape(len(d), d.shape[2] * x.shape[-1])


def _quadratic_backward(
    coefficients: Tensor,  # (T, T), symmetric
    inputs: Tensor,  # (N, I) or (T, N, I)
    grad_outputs: Tensor,  # (T, N, O)
) -> tuple[Tensor, Tensor]:
    """Given df = <C S, dS> for the stacked weight gradients S, the gradients of f."""
    tasks, _, outputs = grad_outputs.shape
    grads = _weight_grads(inputs, grad_outputs)
    x, d = inputs.to(grads.dtype), grad_outputs.to(grads.dtype)
    with full_precision(grads.device):
        combined = (coefficients.to(grads.dtype) @ grads).view(tasks, outputs, x.shape[-1])
        grad_inputs = d @ combined
        grad_d = x @ combined.mT
    if inputs.dim() == 2:
        grad_inputs = grad_inputs.sum(0)
    return grad_inputs.to(inputs.dtype), grad_d.to(grad_outputs.dtype)
