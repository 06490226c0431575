"""What the kernels of the losses write, on any backend."""

from __future__ import annotations

from torch import Tensor

from fastmtl.backends.precision import accumulation_dtype


def results(logits: Tensor, rows: int, tasks: int, reduction: str) -> tuple[Tensor, Tensor]:
    """Memory for the reduced loss, and for the scale of every task, (tasks,)."""
    dtype = accumulation_dtype(logits.dtype)
    shape = (tasks,) if reduction == "task" else (rows, tasks) if reduction == "none" else ()
    return logits.new_empty(shape, dtype=dtype), logits.new_empty(tasks, dtype=dtype)
