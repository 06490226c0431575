"""Per-task gradient norms and Gramian of a linear map, without materialising the gradients."""

from __future__ import annotations

from torch import Tensor

from fastmtl import _checks
from fastmtl.backends.reference import task_grads as reference
from fastmtl.ops._autocast import in_one_dtype, need_one_dtype
from fastmtl.ops._op import FusedOp


def task_grad_norms(
    inputs: Tensor,  # (N, I) or (T, N, I)
    grad_outputs: Tensor,  # (T, N, O)
) -> Tensor:
    """||dL_j/dW||_F of every task's loss for the weight of a linear map y = x W^T.

    With d_j the gradient of task j's loss with respect to y:

        G_j = ||d_j^T x||_F = sqrt(sum((d_j d_j^T) * (x x^T)))

    (the quantity that GradNorm, Chen et al. 2018, section 3, balances). Whichever side of the
    equation takes fewer operations is computed. Differentiable once; the gradient at a zero norm
    is 0.

    Args:
        inputs: x, shared by the tasks or one a task; float32, float64, bfloat16 or float16.
        grad_outputs: d, in the dtype of the inputs.

    Shape:
        inputs (N, I) or (T, N, I), grad_outputs (T, N, O); the norms (T,), float64 for float64
        inputs and float32 otherwise.

    Raises:
        TypeError, ValueError: for arguments of the wrong type, dtype, shape or device.

    Examples:
        >>> import torch
        >>> from fastmtl.ops import task_grad_norms
        >>> x, d = torch.ones(4, 3), torch.stack([torch.ones(4, 2), torch.zeros(4, 2)])
        >>> task_grad_norms(x, d)  # each entry of d_0^T x is 4: sqrt(6 * 16)
        tensor([9.7980, 0.0000])
    """
    inputs, grad_outputs = in_one_dtype(inputs=inputs, grad_outputs=grad_outputs)
    _check(inputs, grad_outputs)
    return _task_grad_norms(inputs, grad_outputs)


def task_grad_gramian(
    inputs: Tensor,  # (N, I) or (T, N, I)
    grad_outputs: Tensor,  # (T, N, O)
) -> Tensor:
    """`<dL_i/dW, dL_j/dW>` of every pair of tasks for the weight of a linear map y = x W^T.

    The Gramian is symmetric, its diagonal is the squared norms:

        S_ij = <d_i^T x, d_j^T x> = <d_i, (x x^T) d_j>

    Norm-free balancing methods (MGDA, Sener and Koltun 2018; PCGrad; CAGrad; Nash-MTL) need nothing
    else of the gradients. Differentiable once.

    Args:
        inputs: as for `task_grad_norms`.
        grad_outputs: as there.

    Shape:
        inputs (N, I) or (T, N, I), grad_outputs (T, N, O); the Gramian (T, T), float64 for float64
        inputs and float32 otherwise.

    Raises:
        TypeError, ValueError: for arguments of the wrong type, dtype, shape or device.

    Examples:
        >>> import torch
        >>> from fastmtl.ops import task_grad_gramian
        >>> x, d = torch.ones(4, 3), torch.stack([torch.ones(4, 2), -torch.ones(4, 2)])
        >>> task_grad_gramian(x, d)
        tensor([[ 96., -96.],
                [-96.,  96.]])
    """
    inputs, grad_outputs = in_one_dtype(inputs=inputs, grad_outputs=grad_outputs)
    _check(inputs, grad_outputs)
    return _task_grad_gramian(inputs, grad_outputs)


def _check(inputs: Tensor, grad_outputs: Tensor) -> None:
    if grad_outputs.dim() != 3:
        raise ValueError(f"grad_outputs: expected shape (T, N, O), got {tuple(grad_outputs.shape)}")
    tasks, samples, _ = grad_outputs.shape
    if inputs.dim() not in (2, 3) or inputs.shape[:-1] not in ((samples,), (tasks, samples)):
        raise ValueError(
            f"inputs: expected shape (N, I) or (T, N, I) with T = {tasks} and N = {samples}, "
            f"got {tuple(inputs.shape)}"
        )
    _checks.need_device("grad_outputs", grad_outputs, "inputs", inputs)


def _guard(inputs: Tensor, grad_outputs: Tensor) -> None:
    need_one_dtype(inputs=inputs, grad_outputs=grad_outputs)
    _check(inputs, grad_outputs)


_task_grad_norms = FusedOp(reference.task_grad_norms, guard=_guard)
_task_grad_gramian = FusedOp(reference.task_grad_gramian, guard=_guard)
