"""The logits of tasks that have several: one layer for all tasks, as wide as the largest needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastmtl._checks import need_size
from fastmtl.nn._module import Indices


def checked_groups(group_sizes: Sequence[int] | None, num_tasks: int) -> tuple[int, ...]:
    """The number of logits of each task: that of its classes, or 1 for a binary one."""
    if group_sizes is None:
        return (1,) * num_tasks
    if len(group_sizes) != num_tasks:
        raise ValueError(
            f"group_sizes: expected one size for each of {num_tasks} tasks, got {len(group_sizes)}"
        )
    return tuple(need_size("group_sizes", size) for size in group_sizes)


def used_columns(group_sizes: Sequence[int], device: torch.device | str | None) -> Indices | None:
    """Where the logits of each task are in (T * max C), or None if they fill it."""
    largest = max(group_sizes)
    if min(group_sizes) == largest:
        return None
    used = [task * largest + own for task, size in enumerate(group_sizes) for own in range(size)]
    return Indices(used, device)


def of_classes(group_sizes: Sequence[int]) -> dict[str, Any]:
    """The argument of a model's constructor, where it is not the default."""
    return {"group_sizes": list(group_sizes)} if max(group_sizes) > 1 else {}


def by_sample(
    of_tasks: Tensor,  # (T, B, max C)
    columns: Indices | None,
) -> Tensor:
    """Logits (B, sum C), those of one task after another."""
    logits = of_tasks.transpose(0, 1).flatten(1)
    return logits if columns is None else logits[:, columns.values]


def start_biases(frequencies: Tensor, group_sizes: Sequence[int], bias: nn.Parameter) -> None:
    """Give the biases (T, max C) the values at which a model without weights gives `frequencies`
    (sum C,), kept within those of 1e-3 from 0 and 1; where one is NaN, as of a task without a
    label, all its classes are as probable."""
    by_task = frequencies.split(list(group_sizes))
    for own, size, shares in zip(bias, group_sizes, by_task, strict=True):
        least = shares.nan_to_num(1 / max(size, 2)).clamp(1e-3, 1 - 1e-3)
        own[:size].copy_(least.logit() if size == 1 else least.log())
