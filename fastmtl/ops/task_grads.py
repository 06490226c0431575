"""Per-task gradient norms and Gramian of a linear map, without materialising the gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastmtl import backends
from fastmtl.backends import reference
from fastmtl.ops import _checks
from fastmtl.ops._autograd import once_differentiable


def task_grad_norms(
    inputs: Tensor,  # (N, I) or (T, N, I)
    grad_outputs: Tensor,  # (T, N, O)
) -> Tensor:
    """||dL_j/dW||_F of every task's loss for the weight of a linear map y = x W^T.

    With x the `inputs`, (N, I) shared by the tasks or (T, N, I), and d_j the gradient of task j's
    loss with respect to y, `grad_outputs` (T, N, O):

        G_j = ||d_j^T x||_F = sqrt(sum((d_j d_j^T) * (x x^T)))

    (the quantity that GradNorm, Chen et al. 2018, section 3, balances). Whichever side of the
    equation takes fewer operations is computed. Returns (T,): float64 for float64 inputs, float32
    otherwise. Differentiable once; the gradient at a zero norm is 0.

    Raises TypeError or ValueError for arguments of the wrong type, dtype, shape or device.

    Example:
        >>> import torch
        >>> from fastmtl.ops import task_grad_norms
        >>> x, d = torch.ones(4, 3), torch.stack([torch.ones(4, 2), torch.zeros(4, 2)])
        >>> task_grad_norms(x, d)  # each entry of d_0^T x is 4: sqrt(6 * 16)
        tensor([9.7980, 0.0000])
    """
    inputs, grad_outputs = _check(inputs, grad_outputs)
    if _checks.traced(grad_outputs):
        norms: Tensor = _task_grad_norms(inputs, grad_outputs)
        return norms
    kernels = backends.kernels("task_grad_norms", grad_outputs.device)
    if kernels is reference:
        return reference.task_grad_norms(inputs, grad_outputs)
    result: Tensor = _TaskGradNorms.apply(inputs, grad_outputs, kernels)
    return result


def task_grad_gramian(
    inputs: Tensor,  # (N, I) or (T, N, I)
    grad_outputs: Tensor,  # (T, N, O)
) -> Tensor:
    """<dL_i/dW, dL_j/dW> of every pair of tasks for the weight of a linear map y = x W^T.

    Arguments as for `task_grad_norms`. The Gramian (T, T) is symmetric, its diagonal is the
    squared norms:

        S_ij = <d_i^T x, d_j^T x> = <d_i, (x x^T) d_j>

    Norm-free balancing methods (MGDA, Sener and Koltun 2018; PCGrad; CAGrad; Nash-MTL) need nothing
    else of the gradients. Returns float64 for float64 inputs, float32 otherwise. Differentiable
    once.

    Raises TypeError or ValueError for arguments of the wrong type, dtype, shape or device.

    Example:
        >>> import torch
        >>> from fastmtl.ops import task_grad_gramian
        >>> x, d = torch.ones(4, 3), torch.stack([torch.ones(4, 2), -torch.ones(4, 2)])
        >>> task_grad_gramian(x, d)
        tensor([[ 96., -96.],
                [-96.,  96.]])
    """
    inputs, grad_outputs = _check(inputs, grad_outputs)
    if _checks.traced(grad_outputs):
        gramian: Tensor = _task_grad_gramian(inputs, grad_outputs)
        return gramian
    kernels = backends.kernels("task_grad_gramian", grad_outputs.device)
    if kernels is reference:
        return reference.task_grad_gramian(inputs, grad_outputs)
    result: Tensor = _TaskGradGramian.apply(inputs, grad_outputs, kernels)
    return result


def _check(inputs: Tensor, grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
    _checks.need_floating("inputs", inputs)
    _checks.need_floating("grad_outputs", grad_outputs)
    if grad_outputs.dim() != 3:
        raise ValueError(f"grad_outputs: expected shape (T, N, O), got {tuple(grad_outputs.shape)}")
    tasks, samples, _ = grad_outputs.shape
    if inputs.dim() not in (2, 3) or inputs.shape[:-1] not in ((samples,), (tasks, samples)):
        raise ValueError(
            f"inputs: expected shape (N, I) or (T, N, I) with T = {tasks} and N = {samples}, "
            f"got {tuple(inputs.shape)}"
        )
    _checks.need_device("grad_outputs", grad_outputs, "inputs", inputs)
    inputs, grad_outputs = _checks.promote_under_autocast(inputs, grad_outputs)
    _checks.need_dtype("grad_outputs", grad_outputs, "inputs", inputs)
    return inputs, grad_outputs


class _TaskGradNorms(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, grad_outputs: Tensor, kernels: Any) -> Tensor:
        norms: Tensor = kernels.task_grad_norms_forward(inputs, grad_outputs)
        ctx.save_for_backward(norms, inputs, grad_outputs)
        ctx.kernels = kernels
        return norms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        return *ctx.kernels.task_grad_norms_backward(grad, *ctx.saved_tensors), None


class _TaskGradGramian(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, grad_outputs: Tensor, kernels: Any) -> Tensor:
        gramian: Tensor = kernels.task_grad_gramian_forward(inputs, grad_outputs)
        ctx.save_for_backward(inputs, grad_outputs)
        ctx.kernels = kernels
        return gramian

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        return *ctx.kernels.task_grad_gramian_backward(grad, *ctx.saved_tensors), None


@torch.library.custom_op("fastmtl::task_grad_norms", mutates_args=())
def _task_grad_norms(inputs: Tensor, grad_outputs: Tensor) -> Tensor:
    kernels = backends.kernels("task_grad_norms", grad_outputs.device)
    result: Tensor = kernels.task_grad_norms_forward(inputs, grad_outputs)
    return result


@torch.library.custom_op("fastmtl::task_grad_norms_backward", mutates_args=())
def _task_grad_norms_backward(
    grad: Tensor, norms: Tensor, inputs: Tensor, grad_outputs: Tensor
) -> tuple[Tensor, Tensor]:
    kernels = backends.kernels("task_grad_norms", grad_outputs.device)
    result: tuple[Tensor, Tensor] = kernels.task_grad_norms_backward(
        grad, norms, inputs, grad_outputs
    )
    return result


@torch.library.custom_op("fastmtl::task_grad_gramian", mutates_args=())
def _task_grad_gramian(inputs: Tensor, grad_outputs: Tensor) -> Tensor:
    kernels = backends.kernels("task_grad_gramian", grad_outputs.device)
    result: Tensor = kernels.task_grad_gramian_forward(inputs, grad_outputs)
    return result


@torch.library.custom_op("fastmtl::task_grad_gramian_backward", mutates_args=())
def _task_grad_gramian_backward(
    grad: Tensor, inputs: Tensor, grad_outputs: Tensor
) -> tuple[Tensor, Tensor]:
    kernels = backends.kernels("task_grad_gramian", grad_outputs.device)
    result: tuple[Tensor, Tensor] = kernels.task_grad_gramian_backward(grad, inputs, grad_outputs)
    return result


@_task_grad_norms.register_fake
def _(inputs: Tensor, grad_outputs: Tensor) -> Tensor:
    dtype = reference.accumulation_dtype(inputs.dtype)
    return inputs.new_empty(grad_outputs.shape[0], dtype=dtype)


@_task_grad_gramian.register_fake
def _(inputs: Tensor, grad_outputs: Tensor) -> Tensor:
    dtype = reference.accumulation_dtype(inputs.dtype)
    return inputs.new_empty((grad_outputs.shape[0], grad_outputs.shape[0]), dtype=dtype)


@_task_grad_norms_backward.register_fake
def _(grad: Tensor, norms: Tensor, inputs: Tensor, grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
    return inputs.new_empty(inputs.shape), grad_outputs.new_empty(grad_outputs.shape)


@_task_grad_gramian_backward.register_fake
def _(grad: Tensor, inputs: Tensor, grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
    return inputs.new_empty(inputs.shape), grad_outputs.new_empty(grad_outputs.shape)


def _setup_norms(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(output, *inputs)


def _setup_gramian(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate_norms(ctx: Any, grad: Tensor) -> Any:
    return _task_grad_norms_backward(grad, *ctx.saved_tensors)


def _differentiate_gramian(ctx: Any, grad: Tensor) -> Any:
    return _task_grad_gramian_backward(grad, *ctx.saved_tensors)


_task_grad_norms.register_autograd(_differentiate_norms, setup_context=_setup_norms)
_task_grad_gramian.register_autograd(_differentiate_gramian, setup_context=_setup_gramian)
