"""A layer of GRUs on the CPU: matrix products over all time steps around the native recurrence.

The inputs' products are one GEMM for all tasks and directions where the tasks share the input, and
one a task otherwise; its result is overwritten by the gates, which backward reads. So are the
products of the weights' gradients: the kernel leaves what they multiply row by row.
"""

from __future__ import annotations

from torch import Tensor

from fastmtl.backends import gemm
from fastmtl.backends.native import memory
from fastmtl.backends.native._recurrence import bias_gradients, recurrence, rows_of
from fastmtl.backends.task_gru import task_parts


def forward(
    x: Tensor,  # (R, I) or (T, R, I)
    weight_ih: Tensor,  # (T, dirs, 3h, I)
    weight_hh: Tensor,  # (T, dirs, 3h, h)
    bias_ih: Tensor,  # (T, dirs, 3h)
    bias_hh: Tensor,  # (T, dirs, 3h)
    starts: Tensor,  # (B,)
    lengths: Tensor,  # (B,)
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    tasks, directions, _, hidden = weight_hh.shape
    rows = x.shape[-2]
    weight_hh, bias_ih, bias_hh = (w.contiguous() for w in (weight_hh, bias_ih, bias_hh))
    output = rows_of(lengths, x, (tasks, rows, directions * hidden))
    gates = hidden_n = x.new_empty(0)
    if keep:
        hidden_n = rows_of(lengths, x, (tasks, directions, rows, hidden))
    for part in [slice(0, tasks)] if keep else task_parts(x, weight_hh):
        gates = _products(x if x.dim() == 2 else x[part], weight_ih[part])
        memory.module(x).task_gru_forward(
            *recurrence(weight_hh[part], starts, lengths, gates),
            memory.address(bias_ih[part]),
            memory.address(bias_hh[part]),
            gates.data_ptr(),
            hidden_n.data_ptr() if keep else 0,
            output[part].data_ptr(),
        )
    return output, gates if keep else x.new_empty(0), hidden_n


def backward(
    grad: Tensor,  # (T, R, dirs * h)
    output: Tensor,  # (T, R, dirs * h)
    gates: Tensor,  # (R, T * dirs * 3h) or (T, R, dirs * 3h)
    hidden_n: Tensor,  # (T, dirs, R, h)
    x: Tensor,  # (R, I) or (T, R, I)
    weight_ih: Tensor,  # (T, dirs, 3h, I)
    weight_hh: Tensor,  # (T, dirs, 3h, h)
    starts: Tensor,  # (B,)
    lengths: Tensor,  # (B,)
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    tasks, directions, width, hidden = weight_hh.shape
    rows, shared = x.shape[-2], x.dim() == 2
    need_x, need_ih, need_hh, *need_biases = needs
    grad, weight_hh = grad.contiguous(), weight_hh.contiguous()
    parts = task_parts(x, weight_hh)
    largest = max((part.stop - part.start for part in parts), default=0)
    grad_bias = weight_hh.new_empty(tasks, directions, 4 * hidden)
    grad_hh = weight_hh.new_empty(weight_hh.shape if need_hh else 0)
    grad_ih = weight_ih.new_empty(weight_ih.shape if need_ih and not shared else 0)
    grad_x = x.new_empty(x.shape if need_x and not shared else 0)
    # The tasks' one product with a shared x needs the gradients of all of them.
    grad_gates = rows_of(lengths, x, tuple(gates.shape) if shared else (largest, *gates.shape[1:]))
    for part in parts:
        count = part.stop - part.start
        grad_recurrent = rows_of(lengths, x, (count, directions, rows, width))
        columns = slice(part.start * directions * width, part.stop * directions * width)
        own_gates = gates[:, columns] if shared else gates[part]
        own_grads = grad_gates[:, columns] if shared else grad_gates[:count]
        memory.module(x).task_gru_backward(
            *recurrence(weight_hh[part], starts, lengths, own_gates),
            own_gates.data_ptr(),
            hidden_n[part].data_ptr(),
            output[part].data_ptr(),
            memory.address(grad[part]),
            own_grads.data_ptr(),
            grad_recurrent.data_ptr(),
            grad_bias[part].data_ptr(),
        )
        if need_hh:
            states = output[part].unflatten(2, (directions, hidden))
            for d in range(directions):
                left = grad_recurrent[:, d].transpose(1, 2)
                gemm.bmm(left, states[:, :, d], out=grad_hh[part, d])
            del left
        del grad_recurrent
        if need_ih and not shared:
            gemm.bmm(own_grads.transpose(1, 2), x[part], out=grad_ih[part].flatten(1, 2))
        if need_x and not shared:
            gemm.bmm(own_grads, weight_ih[part].flatten(1, 2), out=grad_x[part])
    if shared and need_ih:
        grad_ih = gemm.matmul(grad_gates.t(), x, dtype=weight_ih.dtype).view(weight_ih.shape)
    if shared and need_x:
        grad_x = gemm.matmul(grad_gates, weight_ih.flatten(0, 2))
    return grad_x, grad_ih, grad_hh, *bias_gradients(grad_bias, need_biases)


def _products(x: Tensor, weight_ih: Tensor) -> Tensor:
    """W_ih x, (R, T * dirs * 3h) for a shared x and (T, R, dirs * 3h) otherwise."""
    if x.dim() == 2:
        return gemm.matmul(x, weight_ih.flatten(0, 2).t())
    return gemm.bmm(x, weight_ih.flatten(1, 2).transpose(1, 2))
