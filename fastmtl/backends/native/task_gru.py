"""A layer of GRUs on the CPU: matrix products over all time steps around the native recurrence.

The inputs' products are one GEMM for all tasks and directions where the tasks share the input, and
one a task otherwise; its result is overwritten by the gates, which backward reads. So are the
products of the weights' gradients: the kernel leaves what they multiply row by row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastmtl.backends import gemm
from fastmtl.backends.native import memory
from fastmtl.backends.parts import task_parts


def task_gru_layer_forward(
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
    output = _rows_of(lengths, x, (tasks, rows, directions * hidden))
    gates = hidden_n = x.new_empty(0)
    if keep:
        hidden_n = _rows_of(lengths, x, (tasks, directions, rows, hidden))
    for part in [slice(0, tasks)] if keep else task_parts(x, weight_hh):
        gates = _products(x if x.dim() == 2 else x[part], weight_ih[part])
        memory.module(x).task_gru_forward(
            *_recurrence(weight_hh[part], starts, lengths, gates),
            bias_ih[part].data_ptr(),
            bias_hh[part].data_ptr(),
            gates.data_ptr(),
            hidden_n.data_ptr() if keep else 0,
            output[part].data_ptr(),
        )
    return output, gates if keep else x.new_empty(0), hidden_n


def task_gru_layer_backward(
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
    need_x, need_ih, need_hh = needs
    grad, weight_hh = grad.contiguous(), weight_hh.contiguous()
    parts = task_parts(x, weight_hh)
    largest = max((part.stop - part.start for part in parts), default=0)
    grad_bias = x.new_empty(tasks, directions, 4 * hidden)
    grad_hh = x.new_empty(weight_hh.shape if need_hh else 0)
    grad_ih = x.new_empty(weight_ih.shape if need_ih and not shared else 0)
    grad_x = x.new_empty(x.shape if need_x and not shared else 0)
    # The tasks' one product with a shared x needs the gradients of all of them.
    grad_gates = _rows_of(lengths, x, tuple(gates.shape) if shared else (largest, *gates.shape[1:]))
    for part in parts:
        count = part.stop - part.start
        grad_recurrent = _rows_of(lengths, x, (count, directions, rows, width))
        columns = slice(part.start * directions * width, part.stop * directions * width)
        own_gates = gates[:, columns] if shared else gates[part]
        own_grads = grad_gates[:, columns] if shared else grad_gates[:count]
        memory.module(x).task_gru_backward(
            *_recurrence(weight_hh[part], starts, lengths, own_gates),
            own_gates.data_ptr(),
            hidden_n[part].data_ptr(),
            output[part].data_ptr(),
            grad[part].data_ptr(),
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
        grad_ih = gemm.matmul(grad_gates.t(), x).view(weight_ih.shape)
    if shared and need_x:
        grad_x = gemm.matmul(grad_gates, weight_ih.flatten(0, 2))
    reset_update, new, new_recurrent = grad_bias.split([2 * hidden, hidden, hidden], 2)
    return (
        grad_x,
        grad_ih,
        grad_hh,
        torch.cat([reset_update, new], 2),
        torch.cat([reset_update, new_recurrent], 2),
    )


def _products(x: Tensor, weight_ih: Tensor) -> Tensor:
    """W_ih x, (R, T * dirs * 3h) for a shared x and (T, R, dirs * 3h) otherwise."""
    if x.dim() == 2:
        return gemm.matmul(x, weight_ih.flatten(0, 2).t())
    return gemm.bmm(x, weight_ih.flatten(1, 2).transpose(1, 2))


def _rows_of(lengths: Tensor, like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Memory for values of all rows, 0 in those that no sequence has."""
    covered = int(lengths.sum()) == like.shape[-2]
    return like.new_empty(shape) if covered else like.new_zeros(shape)


def _recurrence(
    weight_hh: Tensor, starts: Tensor, lengths: Tensor, gates: Tensor
) -> tuple[Any, ...]:
    tasks, directions, width, hidden = weight_hh.shape
    strides = (directions * width, gates.stride(0)) if gates.dim() == 2 else gates.stride()[:2]
    return (
        memory.execution(gates),
        memory.DTYPES[gates.dtype],
        weight_hh.data_ptr(),
        starts.data_ptr(),
        lengths.data_ptr(),
        tasks,
        directions,
        lengths.shape[0],
        gates.shape[-2],
        hidden,
        *strides,
    )
