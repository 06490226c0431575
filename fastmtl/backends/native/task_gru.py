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
    if x.dim() == 2:
        gates = gemm.matmul(x, weight_ih.flatten(0, 2).t())  # (R, T * dirs * 3h)
    else:
        gates = gemm.bmm(x, weight_ih.flatten(1, 2).transpose(1, 2))  # (T, R, dirs * 3h)
    output = _rows_of(lengths, x, (tasks, rows, directions * hidden))
    hidden_n = x.new_empty(0)
    if keep:
        hidden_n = _rows_of(lengths, x, (tasks, directions, rows, hidden))
    weight_hh, bias_ih, bias_hh = (w.contiguous() for w in (weight_hh, bias_ih, bias_hh))
    memory.module(x).task_gru_forward(
        *_recurrence(weight_hh, starts, lengths, gates),
        bias_ih.data_ptr(),
        bias_hh.data_ptr(),
        gates.data_ptr(),
        hidden_n.data_ptr() if keep else 0,
        output.data_ptr(),
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
    tasks, directions, _, hidden = weight_hh.shape
    rows = x.shape[-2]
    grad, weight_hh = grad.contiguous(), weight_hh.contiguous()
    grad_gates = _rows_of(lengths, x, tuple(gates.shape))
    grad_recurrent = _rows_of(lengths, x, (tasks, directions, rows, 3 * hidden))
    grad_bias = x.new_empty(tasks, directions, 4 * hidden)
    memory.module(x).task_gru_backward(
        *_recurrence(weight_hh, starts, lengths, gates),
        gates.data_ptr(),
        hidden_n.data_ptr(),
        output.data_ptr(),
        grad.data_ptr(),
        grad_gates.data_ptr(),
        grad_recurrent.data_ptr(),
        grad_bias.data_ptr(),
    )
    need_x, need_ih, need_hh = needs
    grad_x = grad_ih = grad_hh = x.new_empty(0)
    if need_hh:
        states = output.unflatten(2, (directions, hidden))
        products = [
            gemm.bmm(grad_recurrent[:, d].transpose(1, 2), states[:, :, d])
            for d in range(directions)
        ]
        grad_hh = torch.stack(products, 1)
    del grad_recurrent
    if x.dim() == 2:
        if need_ih:
            grad_ih = gemm.matmul(grad_gates.t(), x).view(weight_ih.shape)
        if need_x:
            grad_x = gemm.matmul(grad_gates, weight_ih.flatten(0, 2))
    else:
        if need_ih:
            grad_ih = gemm.bmm(grad_gates.transpose(1, 2), x).view(weight_ih.shape)
        if need_x:
            grad_x = gemm.bmm(grad_gates, weight_ih.flatten(1, 2))
    reset_update, new, new_recurrent = grad_bias.split([2 * hidden, hidden, hidden], 2)
    return (
        grad_x,
        grad_ih,
        grad_hh,
        torch.cat([reset_update, new], 2),
        torch.cat([reset_update, new_recurrent], 2),
    )


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
        memory.execution(gates),
    )
