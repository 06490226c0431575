"""Per-task gradient norms and Gramian of a linear map, in plain PyTorch.

For y = x W^T and d_j = dL_j/dy, dL_j/dW = d_j^T x: the gradients are materialised one by one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl.backends.precision import accumulation_dtype, full_precision
from fastmtl.backends.reference._reduction import row_norms


def task_grad_norms(
    inputs: Tensor,  # (N, I) or (T, N, I)
    grad_outputs: Tensor,  # (T, N, O)
) -> Tensor:
    """||dL_j/dW||_F for every task, (T,)."""
    return row_norms(_weight_grads(inputs, grad_outputs))


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
    factor = torch.where(norms == 0, 0, grad / norms)
    return _backward(factor[:, None] * _weight_grads(inputs, grad_outputs), inputs, grad_outputs)


def task_grad_gramian_backward(
    grad: Tensor,  # (T, T)
    inputs: Tensor,  # (N, I) or (T, N, I)
    grad_outputs: Tensor,  # (T, N, O)
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to both inputs."""
    grads = _weight_grads(inputs, grad_outputs)
    with full_precision(grads.device):
        combined = (grad + grad.T) @ grads
    return _backward(combined, inputs, grad_outputs)


def _weight_grads(inputs: Tensor, grad_outputs: Tensor) -> Tensor:
    """dL_j/dW flattened, (T, O * I)."""
    dtype = accumulation_dtype(inputs.dtype)
    x, d = inputs.to(dtype), grad_outputs.to(dtype)
    with full_precision(x.device):
        return (d.mT @ x).reshape(len(d), d.shape[2] * x.shape[-1])


def _backward(
    combined: Tensor,  # (T, O * I)
    inputs: Tensor,  # (N, I) or (T, N, I)
    grad_outputs: Tensor,  # (T, N, O)
) -> tuple[Tensor, Tensor]:
    """Given df = <combined, dS> for the stacked weight gradients S, the gradients of f."""
    x, d = inputs.to(combined.dtype), grad_outputs.to(combined.dtype)
    combined = combined.view(len(d), d.shape[2], x.shape[-1])
    with full_precision(d.device):
        grad_inputs = d @ combined
        grad_d = x @ combined.mT
    if inputs.dim() == 2:
        grad_inputs = grad_inputs.sum(0)
    return grad_inputs.to(inputs.dtype), grad_d.to(grad_outputs.dtype)
