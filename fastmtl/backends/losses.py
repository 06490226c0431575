"""What the kernels of the losses write, on any backend."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from fastmtl.backends.precision import accumulation_dtype


def results(logits: Tensor, rows: int, tasks: int, reduction: str) -> tuple[Tensor, Tensor]:
    """Memory for the reduced loss, and for the scale of every task, (tasks,)."""
    shape = (tasks,) if reduction == "task" else (rows, tasks) if reduction == "none" else ()
    dtype = accumulation_dtype(logits.dtype)
    if dtype == logits.dtype:  # not to be named: that alone takes half as long again
        return logits.new_empty(shape), logits.new_empty(tasks)
    return logits.new_empty(shape, dtype=dtype), logits.new_empty(tasks, dtype=dtype)


class MultilabelOptions(NamedTuple):
    """The numbers of a multi-label loss; the first PER_TASK are those of all tasks where none are
    given for each."""

    gamma_pos: float = 0.0
    gamma_neg: float = 0.0
    pos_weight: float = 1.0
    neg_weight: float = 1.0
    shift: float = 0.0
    clip: float = 0.0
    poly: float = 0.0
    smoothing: float = 0.0
    neg_scale: float = 1.0


PER_TASK = 5
