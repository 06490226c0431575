"""What the backends of the GRU layer share: going through its tasks in parts.

Memory that is needed for the tasks in work alone is then bounded, and stays in the caches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd
from typing import Any, cast

import torch
from torch import Tensor

from fastmtl.backends.precision import accumulation_dtype

Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]

# Elements that a part of the tasks should at least have: below, a call costs more than it saves.
_WORTHWHILE = 1 << 19


def task_parts(x: Tensor, weight_hh: Tensor) -> list[slice]:
    """The tasks of a GRU layer in parts, each with as many pairs of task and direction as the CPU
    has threads, or a multiple, and not tiny; all of them at once on another device.

    x is (R, I) or (T, R, I) and weight_hh (T, dirs, 3h, h).
    """
    tasks, directions, width, _ = weight_hh.shape
    if x.device.type != "cpu":
        return [slice(0, tasks)]
    threads = torch.get_num_threads()
    step = threads // gcd(threads, directions)
    elements = max(1, step * directions * width * x.shape[-2])
    step *= -(-_WORTHWHILE // elements)
    return [slice(begin, min(begin + step, tasks)) for begin in range(0, tasks, step)]


def gradients_from_inputs(
    forward: Callable[..., tuple[Tensor, Tensor, Tensor]],
    backward: Callable[..., Gradients],
    grad: Tensor,  # (T, R, dirs * h)
    x: Tensor,  # (R, I) or (T, R, I)
    weights: tuple[Tensor, ...],  # weight_ih, weight_hh, bias_ih, bias_hh
    rows: tuple[Tensor, Tensor],  # starts, lengths
    needs: list[bool],
) -> Gradients:
    """The gradients of a forward pass that kept nothing: it is done again, some tasks at a time."""

    def gradients(grad: Tensor, *leaves: Any) -> Gradients:
        kept = forward(*leaves, *rows, True)
        return backward(grad, *kept, *leaves, *rows, True, needs)

    parts, shared = task_parts(x, weights[1]), x.dim() == 2
    if len(parts) == 1:
        return gradients(grad, x, *weights)
    totals = [
        torch.zeros_like(leaf, dtype=accumulation_dtype(leaf.dtype)) if need else leaf.new_empty(0)
        for leaf, need in zip((x, *weights), needs, strict=True)
    ]
    for part in parts:
        found = gradients(grad[part], x if shared else x[part], *(w[part] for w in weights))
        for index, (total, value) in enumerate(zip(totals, found, strict=True)):
            if shared and index == 0:
                total += value
            elif needs[index]:
                total[part] = value
        del found, value
    return in_dtypes_of((x, *weights), totals)


def in_dtypes_of(leaves: Sequence[Tensor], gradients: Sequence[Tensor]) -> Gradients:
    """The gradients of x, weights and biases, each in the dtype of its own."""
    grads = [grad.to(leaf.dtype) for grad, leaf in zip(gradients, leaves, strict=True)]
    return cast(Gradients, tuple(grads))
