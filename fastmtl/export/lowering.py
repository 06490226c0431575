"""The ops in terms of torch's own, so that a graph of them runs where fastmtl is not installed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan

from fastmtl import backends

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def decompositions(*, besides: str = "", unrolled: bool = False) -> dict[Any, Callable[..., Any]]:
    """What `ExportedProgram.run_decompositions` takes: every op but `besides`, by its formula.

    `unrolled` writes every step of a recurrence out, for sequences whose number of steps is fixed.
    """
    table = {op: backends.load("reference", op).forward for op in backends.stems()}
    table["task_gru_layer"] = partial(task_gru_layer, recur=_each if unrolled else scan)
    registered = torch.ops.fastmtl
    return {getattr(registered, op).default: table[op] for op in table if op != besides}


def task_gru_layer(
    x: Tensor,  # (B * L, I) or (T, B * L, I)
    weight_ih: Tensor,  # (T, dirs, 3h, I)
    weight_hh: Tensor,  # (T, dirs, 3h, h)
    bias_ih: Tensor,  # (T, dirs, 3h)
    bias_hh: Tensor,  # (T, dirs, 3h)
    starts: Tensor,  # (B,)
    lengths: Tensor,  # (B,)
    keep: bool,
    recur: Callable[[Step, Tensor, Tensor], tuple[Tensor, Tensor]] = scan,
) -> tuple[Tensor, Tensor, Tensor]:
    """The op's results without what backward reads, for any number of steps.

    As the layers lay them out in a graph, sequence b begins at row b * L. The recurrence takes all
    tasks and directions at once; by `recur` it is a scan, where the formula's loop would fix L.
    """
    tasks, directions, _, hidden = weight_hh.shape
    batch = starts.shape[0]
    steps = x.shape[-2] // batch
    time = torch.arange(steps)
    inside = time < lengths[:, None]  # (B, L)
    mirrored = torch.where(inside, lengths[:, None] - 1 - time, time)
    orders = [time.expand(batch, steps), mirrored][:directions]
    rows = starts[:, None] + torch.stack(orders)  # (dirs, B, L)
    of_tasks = x.unsqueeze(0) if x.dim() == 2 else x
    ordered = torch.stack([of_tasks[:, row] for row in rows.unbind()], 1)  # (., dirs, B, L, I)
    gates = ordered @ weight_ih.mT.unsqueeze(2) + bias_ih[:, :, None, None]
    weights, biases = weight_hh.flatten(0, 1).mT, bias_hh.flatten(0, 1).unsqueeze(1)

    def step(h: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
        own = torch.baddbmm(biases, h, weights)
        x_r, x_z, x_n = gate.chunk(3, -1)
        h_r, h_z, h_n = own.chunk(3, -1)
        r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
        n = (x_n + r * h_n).tanh()
        h = n + z * (h - n)
        return h, h.clone()

    start = x.new_zeros(tasks * directions, batch, hidden)
    _, states = recur(step, start, gates.flatten(0, 1).permute(2, 0, 1, 3))
    by_pair = states.permute(1, 2, 0, 3).unflatten(0, (tasks, directions)) * inside[:, :, None]
    both = [by_pair[:, 0]]
    if directions == 2:
        back = mirrored[None, :, :, None].expand(tasks, batch, steps, hidden)
        both.append(by_pair[:, 1].gather(2, back))
    return torch.cat(both, -1).flatten(1, 2), x.new_empty(0), x.new_empty(0)


def _each(step: Step, state: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """A scan, step after step."""
    outputs = []
    for each in inputs.unbind():
        state, output = step(state, each)
        outputs.append(output)
    return state, torch.stack(outputs)
