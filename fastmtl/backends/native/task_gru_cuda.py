"""A layer of GRUs on a GPU: cuBLAS's products over all time steps around the recurrence.

What goes into the products and what is kept is as on the CPU, in
fastmtl.backends.native.task_gru_cpu.
The recurrence is one launch where a block of the device can keep the recurrent weights of a task
and direction; larger ones are multiplied step by step, all tasks and directions in one product,
with one launch for the gates between two products. `starts` and `lengths` stay in host memory:
they travel as parameters of the kernels, so that nothing waits for a copy, and in a captured graph
they are constants, like the shapes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl.backends.native import memory
from fastmtl.backends.native._recurrence import bias_gradients, recurrence, rows_of


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
    if x.dim() == 2:
        gates = torch.mm(x, weight_ih.flatten(0, 2).t())  # (R, T * dirs * 3h)
    else:
        gates = torch.bmm(x, weight_ih.flatten(1, 2).mT)  # (T, R, dirs * 3h)
    output = rows_of(lengths, x, (tasks, rows, directions * hidden))
    hidden_n = x.new_empty(0)
    if keep:
        hidden_n = rows_of(lengths, x, (tasks, directions, rows, hidden))
    weight_hh, bias_ih, bias_hh = (w.contiguous() for w in (weight_hh, bias_ih, bias_hh))
    pointers = (
        memory.address(bias_ih),
        memory.address(bias_hh),
        gates.data_ptr(),
        hidden_n.data_ptr() if keep else 0,
        output.data_ptr(),
    )
    run = _forward_at_once if in_one_launch(weight_hh) else _forward_by_steps
    run(weight_hh, starts, lengths, gates, pointers)
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
    tasks, directions, _, hidden = weight_hh.shape
    grad, weight_hh = grad.contiguous(), weight_hh.contiguous()
    grad_gates = rows_of(lengths, x, tuple(gates.shape))
    grad_recurrent = rows_of(lengths, x, (tasks, directions, x.shape[-2], 3 * hidden))
    grad_bias = weight_hh.new_empty(tasks, directions, 4 * hidden)
    pointers = (
        gates.data_ptr(),
        hidden_n.data_ptr(),
        output.data_ptr(),
        memory.address(grad),
        grad_gates.data_ptr(),
        grad_recurrent.data_ptr(),
        grad_bias.data_ptr(),
    )
    run = _backward_at_once if in_one_launch(weight_hh) else _backward_by_steps
    run(weight_hh, starts, lengths, gates, grad_bias, pointers)
    grad_x = grad_ih = grad_hh = x.new_empty(0)
    need_x, need_ih, need_hh, *need_biases = needs
    if need_hh:
        states = output.unflatten(2, (directions, hidden))
        products = [torch.bmm(grad_recurrent[:, d].mT, states[:, :, d]) for d in range(directions)]
        grad_hh = torch.stack(products, 1)
    if x.dim() == 2:
        if need_ih:
            grad_ih = torch.mm(grad_gates.t(), x).view(weight_ih.shape)
        if need_x:
            grad_x = torch.mm(grad_gates, weight_ih.flatten(0, 2))
    else:
        if need_ih:
            grad_ih = torch.bmm(grad_gates.mT, x).view(weight_ih.shape)
        if need_x:
            grad_x = torch.bmm(grad_gates, weight_ih.flatten(1, 2))
    return grad_x, grad_ih, grad_hh, *bias_gradients(grad_bias, need_biases)


def in_one_launch(weight_hh: Tensor) -> bool:
    """Whether the recurrence is one launch."""
    dtype, hidden = memory.DTYPES[weight_hh.dtype], weight_hh.shape[3]
    kernels = memory.module(weight_hh)
    return bool(kernels.task_gru_in_one_launch(memory.device_of(weight_hh), dtype, hidden))


def _forward_at_once(
    weight_hh: Tensor, starts: Tensor, lengths: Tensor, gates: Tensor, pointers: tuple[int, ...]
) -> None:
    arguments = recurrence(weight_hh, starts, lengths, gates)
    memory.module(gates).task_gru_forward(*arguments, *pointers)


def _backward_at_once(
    weight_hh: Tensor,
    starts: Tensor,
    lengths: Tensor,
    gates: Tensor,
    grad_bias: Tensor,
    pointers: tuple[int, ...],
) -> None:
    tasks, directions, _, hidden = weight_hh.shape
    sizes = memory.DTYPES[gates.dtype], tasks * directions, len(lengths), hidden
    workspace = memory.workspace("task_gru", gates, *sizes)
    arguments = recurrence(weight_hh, starts, lengths, gates, workspace)
    memory.module(gates).task_gru_backward(*arguments, *pointers)


def _forward_by_steps(
    weight_hh: Tensor, starts: Tensor, lengths: Tensor, gates: Tensor, pointers: tuple[int, ...]
) -> None:
    weights = weight_hh.flatten(0, 1)  # (T * dirs, 3h, h)
    starts, lengths, running = _longest_first(starts, lengths)
    arguments = recurrence(weight_hh, starts, lengths, gates)
    states = weights.new_empty(len(weights), len(lengths), weights.shape[2])
    products = states
    for step, count in enumerate(running):
        if step:
            products = torch.bmm(states[:, :count], weights.mT)
        data = products.data_ptr(), states.data_ptr()
        memory.module(gates).task_gru_forward_step(*arguments, *pointers, step, count, *data)


def _backward_by_steps(
    weight_hh: Tensor,
    starts: Tensor,
    lengths: Tensor,
    gates: Tensor,
    grad_bias: Tensor,
    pointers: tuple[int, ...],
) -> None:
    weights = weight_hh.flatten(0, 1)  # (T * dirs, 3h, h)
    pairs, width, hidden = weights.shape
    starts, lengths, running = _longest_first(starts, lengths)
    arguments = recurrence(weight_hh, starts, lengths, gates)
    carry = weights.new_empty(pairs, len(lengths), hidden)
    sums = weights.new_empty(pairs, len(lengths), 4 * hidden)
    for step, count in reversed(list(enumerate(running))):
        grads = weights.new_empty(pairs, count, width)
        data = grads.data_ptr(), carry.data_ptr(), sums.data_ptr()
        memory.module(gates).task_gru_backward_step(*arguments, *pointers, step, count, *data)
        if step:
            carry[:, :count].baddbmm_(grads, weights)
    torch.sum(sums, 1, out=grad_bias.flatten(0, 1))


def _longest_first(starts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, list[int]]:
    """The sequences in the order of their lengths, and how many of them run at every step."""
    order = lengths.argsort(descending=True, stable=True)
    starts, lengths = starts[order], lengths[order]
    steps = torch.arange(int(lengths[0]) if len(lengths) else 0)
    running = (lengths.unsqueeze(1) > steps).sum(0)
    return starts, lengths, running.tolist()
