"""A layer of GRUs, one a task and direction: torch's own GRU, and its equations step by step.

With W_ih x + b_ih = (x_r, x_z, x_n) and W_hh h + b_hh = (h_r, h_z, h_n):

    r = sigmoid(x_r + h_r),  z = sigmoid(x_z + h_z),  n = tanh(x_n + r h_n),  h' = n + z (h - n)

The time steps of sequence b are the rows starts[b] to starts[b] + lengths[b] - 1; the second
direction goes through them from the end. Rows that no sequence has are 0 in what is returned.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fastmtl.backends.precision import accumulation_dtype, full_precision
from fastmtl.backends.task_gru import Gradients, gradients_from_inputs, in_dtypes_of


def task_gru_layer(
    x: Tensor,  # (R, I) or (T, R, I)
    weight_ih: Tensor,  # (T, dirs, 3h, I)
    weight_hh: Tensor,  # (T, dirs, 3h, h)
    bias_ih: Tensor,  # (T, dirs, 3h)
    bias_hh: Tensor,  # (T, dirs, 3h)
    starts: Tensor,  # (B,)
    lengths: Tensor,  # (B,)
    keep: bool,
) -> Tensor:
    """The states (T, R, dirs * h), by torch's GRU on packed sequences, task after task."""
    dtype = x.dtype
    x, weight_ih, weight_hh, bias_ih, bias_hh = _widened(x, weight_ih, weight_hh, bias_ih, bias_hh)
    tasks, directions, _, hidden = weight_hh.shape
    shape = (tasks, x.shape[-2], directions * hidden)
    if not len(lengths):
        return x.new_zeros(shape, dtype=dtype)
    rows, batch_sizes = _packed_rows(starts, lengths)
    rows = rows.to(x.device)
    packed = x.index_select(-2, rows)
    state = x.new_zeros(directions, len(lengths), hidden)
    weights = [w.unbind() for w in (weight_ih, weight_hh, bias_ih, bias_hh)]
    outputs = []
    for task in range(tasks):
        flat = [
            w for kinds in zip(*(w[task].unbind() for w in weights), strict=True) for w in kinds
        ]
        data = packed if x.dim() == 2 else packed[task]
        train, both = torch.is_grad_enabled(), directions == 2
        with full_precision(x.device):
            states, _ = torch._VF.gru(data, batch_sizes, state, flat, True, 1, 0.0, train, both)
        outputs.append(states)
    return x.new_zeros(shape).index_copy(1, rows, torch.stack(outputs)).to(dtype)


def task_gru_layer_forward(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    starts: Tensor,
    lengths: Tensor,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The states (T, R, dirs * h) and what backward reads: the gates r, z, n, laid out as the one
    matrix product that they come from, (R, T * dirs * 3h) for a shared x and (T, R, dirs * 3h)
    otherwise, and h_n (T, dirs, R, h). Both are empty unless `keep`. All are of the dtype of x."""
    with full_precision(x.device):
        leaves = x, weight_ih, weight_hh, bias_ih, bias_hh
        states, gates, hidden_n = (kept.to(x.dtype) for kept in _forward(*leaves, starts, lengths))
    if not keep:
        return states, x.new_empty(0), x.new_empty(0)
    return states, gates, hidden_n


def _forward(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    starts: Tensor,
    lengths: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    x, weight_ih, weight_hh, bias_ih, bias_hh = _widened(x, weight_ih, weight_hh, bias_ih, bias_hh)
    tasks, directions, _, hidden = weight_hh.shape
    shared = x.dim() == 2
    gates = torch.einsum("ri,tdgi->tdrg" if shared else "tri,tdgi->tdrg", x, weight_ih)
    gates = gates + bias_ih[:, :, None]
    output = x.new_zeros(tasks, directions, x.shape[-2], hidden)
    hidden_n = torch.zeros_like(output)
    for d, rows, before, started in _steps(directions, starts, lengths, x.device):
        h = output[:, d, before] * started
        own = h @ weight_hh[:, d].transpose(1, 2) + bias_hh[:, d, None]
        r, z = (gates[:, d, rows, : 2 * hidden] + own[:, :, : 2 * hidden]).sigmoid().chunk(2, 2)
        h_n = own[:, :, 2 * hidden :]
        n = (gates[:, d, rows, 2 * hidden :] + r * h_n).tanh()
        gates[:, d, rows] = torch.cat([r, z, n], 2)
        hidden_n[:, d, rows] = h_n
        output[:, d, rows] = n + z * (h - n)
    return output.transpose(1, 2).flatten(2), _laid_out(gates, shared), hidden_n


def task_gru_layer_backward(
    grad: Tensor,  # (T, R, dirs * h)
    output: Tensor,  # (T, R, dirs * h)
    gates: Tensor,  # as forward returned them
    hidden_n: Tensor,  # (T, dirs, R, h)
    x: Tensor,  # (R, I) or (T, R, I)
    weight_ih: Tensor,  # (T, dirs, 3h, I)
    weight_hh: Tensor,  # (T, dirs, 3h, h)
    bias_ih: Tensor,  # (T, dirs, 3h)
    bias_hh: Tensor,  # (T, dirs, 3h)
    starts: Tensor,  # (B,)
    lengths: Tensor,  # (B,)
    keep: bool,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight_ih, weight_hh, bias_ih and bias_hh, empty where `needs` says that
    nobody wants them. `output` is empty too where the forward pass did not `keep`."""
    weights = weight_ih, weight_hh, bias_ih, bias_hh
    if not keep:
        rows = starts, lengths
        return gradients_from_inputs(
            task_gru_layer_forward, task_gru_layer_backward, grad, x, weights, rows, needs
        )
    with full_precision(x.device):
        kept = output, gates, hidden_n
        grads = _backward(grad, *kept, x, weight_ih, weight_hh, starts, lengths, needs)
        return in_dtypes_of((x, *weights), grads)


def _backward(
    grad: Tensor,
    output: Tensor,
    gates: Tensor,
    hidden_n: Tensor,
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    starts: Tensor,
    lengths: Tensor,
    needs: list[bool],
) -> Gradients:
    grad, output, gates, hidden_n = _widened(grad, output, gates, hidden_n)
    x, weight_ih, weight_hh = _widened(x, weight_ih, weight_hh)
    tasks, directions, width, hidden = weight_hh.shape
    shared = x.dim() == 2
    by_pair = (
        gates.view(-1, tasks, directions, width).permute(1, 2, 0, 3)
        if shared
        else (gates.unflatten(2, (directions, width)).transpose(1, 2))
    )
    total = grad.unflatten(2, (directions, hidden)).transpose(1, 2).clone()
    states = output.unflatten(2, (directions, hidden)).transpose(1, 2)
    grad_gates = torch.zeros_like(by_pair)  # of x_r, x_z, x_n
    grad_own = torch.zeros_like(by_pair)  # of h_r, h_z, h_n
    previous = torch.zeros_like(states)
    for d, rows, before, started in reversed(list(_steps(directions, starts, lengths, x.device))):
        h = states[:, d, before] * started
        r, z, n = by_pair[:, d, rows].chunk(3, 2)
        dh = total[:, d, rows]
        dn = dh * (1 - z) * (1 - n * n)
        dz = dh * (h - n) * z * (1 - z)
        dr = dn * hidden_n[:, d, rows] * r * (1 - r)
        grad_gates[:, d, rows] = torch.cat([dr, dz, dn], 2)
        grad_own[:, d, rows] = own = torch.cat([dr, dz, dn * r], 2)
        total[:, d, before] += (own @ weight_hh[:, d] + dh * z) * started
        previous[:, d, rows] = h
    need_x, need_ih, need_hh, *need_biases = needs
    to_x, to_ih = (
        ("tdrg,tdgi->ri", "tdrg,ri->tdgi") if shared else ("tdrg,tdgi->tri", "tdrg,tri->tdgi")
    )
    return (
        torch.einsum(to_x, grad_gates, weight_ih) if need_x else x.new_empty(0),
        torch.einsum(to_ih, grad_gates, x) if need_ih else x.new_empty(0),
        torch.einsum("tdrg,tdrh->tdgh", grad_own, previous) if need_hh else x.new_empty(0),
        grad_gates.sum(2) if need_biases[0] else x.new_empty(0),
        grad_own.sum(2) if need_biases[1] else x.new_empty(0),
    )


def _widened(*tensors: Tensor) -> Iterator[Tensor]:
    """Tensors in the dtypes in which their own accumulate."""
    return (tensor.to(accumulation_dtype(tensor.dtype)) for tensor in tensors)


def _packed_rows(starts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The rows in the order of `torch.nn.utils.rnn.PackedSequence`, and its batch sizes."""
    order = lengths.argsort(descending=True, stable=True)
    time = torch.arange(int(lengths.max()))
    running = time[:, None] < lengths[order]  # (L, B)
    return (starts[order] + time[:, None])[running], running.sum(1)


def _steps(
    directions: int, starts: Tensor, lengths: Tensor, device: torch.device
) -> Iterator[tuple[int, Tensor, Tensor, int]]:
    """By direction and step: the rows of the sequences that still run, the rows of their states
    before, and whether there is such a state (1) or the sequences start (0)."""
    for direction in range(directions):
        for step in range(int(lengths.max()) if len(lengths) else 0):
            running = (lengths > step).nonzero().squeeze(1)
            first, last = starts[running], starts[running] + lengths[running] - 1
            rows = last - step if direction else first + step
            before = rows if not step else rows + 1 if direction else rows - 1
            yield direction, rows.to(device), before.to(device), int(step > 0)


def _laid_out(gates: Tensor, shared: bool) -> Tensor:
    """(T, dirs, R, 3h) in the layout of the saved gates."""
    if shared:
        return gates.permute(2, 0, 1, 3).flatten(1)
    return gates.transpose(1, 2).flatten(2)
