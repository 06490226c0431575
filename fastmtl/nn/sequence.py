"""Variable-length sequences: what every layer over time shares about `lengths` and padding."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastmtl._checks import need_shape, need_tensor
from fastmtl.ops._op import traced


def need_lengths(lengths: Any, batch: int, steps: int, name: str = "lengths") -> None:
    """Raise unless `lengths` gives each of `batch` sequences a length from 1 to `steps`.

    `lengths` is None (no sequence is padded) or an int64 CPU tensor (B,), as
    `torch.nn.utils.rnn.pack_padded_sequence` wants it: its values are read here, and reading them
    from a GPU would stall it.
    """
    if steps < 1:
        raise ValueError(f"{name}: expected sequences of at least one time step, got 0 steps")
    if lengths is None:
        return
    need_tensor(name, lengths)
    if lengths.dtype != torch.int64:
        raise TypeError(f"{name}: expected an int64 tensor, got {lengths.dtype}")
    need_shape(name, lengths, (batch,), "(B,)")
    if lengths.device.type != "cpu":
        raise ValueError(f"{name}: expected a CPU tensor, got one on {lengths.device}")
    # A compiled graph cannot read them; there the op that follows them does when it runs.
    if lengths.numel() == 0 or torch.compiler.is_compiling():
        return
    low, high = (int(bound) for bound in lengths.aminmax())
    if low < 1 or high > steps:
        raise ValueError(
            f"{name}: expected lengths from 1 to {steps}, got values from {low} to {high}"
        )


class Ragged(NamedTuple):
    """Sequences as rows of one matrix, as `fastmtl.ops.task_gru` takes them."""

    rows: Tensor  # (..., R, D)
    starts: Tensor  # (B,) the first row of each sequence
    lengths: Tensor  # (B,)
    kept: Tensor | None  # (R,) which of the B * L steps the rows are; None: all of them

    def padded(self, values: Tensor, batch: int, steps: int) -> Tensor:
        """Values of the rows (..., R, D) as (..., B, L, D), 0 at the steps that have no row."""
        if self.kept is not None:
            full = values.new_zeros(*values.shape[:-2], batch * steps, values.shape[-1])
            values = full.index_copy(-2, self.kept, values)
        return values.view(*values.shape[:-2], batch, steps, values.shape[-1])


def ragged(x: Tensor, lengths: Tensor | None) -> Ragged:
    """The steps of x (..., B, L, D) that are not padding, as rows.

    Padded steps are left out on the CPU. Elsewhere, and in compiled graphs, whose shapes cannot
    depend on the lengths, they are rows of zeros that no sequence has.
    """
    batch, steps, _ = x.shape[-3:]
    starts = torch.arange(batch) * steps
    rows = x.flatten(-3, -2)
    if lengths is None:
        return Ragged(rows, starts, torch.full((batch,), steps), None)
    padding = padding_mask(lengths, steps, x.device)
    if traced(x) or x.device.type != "cpu":
        rows = rows.masked_fill(padding.flatten().unsqueeze(1), 0.0)
        return Ragged(rows, starts, lengths, None)
    kept = padding.logical_not().flatten().nonzero().squeeze(1)
    if len(kept) == batch * steps:
        return Ragged(rows, starts, lengths, None)
    return Ragged(rows.index_select(-2, kept), lengths.cumsum(0) - lengths, lengths, kept)


def padding_mask(lengths: Tensor, steps: int, device: torch.device) -> Tensor:
    """Return the (B, L) bool mask that is True at padded steps."""
    ends = lengths.to(device, non_blocking=True)
    return torch.arange(steps, device=device) >= ends.unsqueeze(1)


def masked_softmax(scores: Tensor, padding: Tensor | None) -> Tensor:
    """Softmax of `scores` (..., B, L) over time, exactly 0 where `padding` (B, L) is True.

    Every sequence needs one step that is not padded.
    """
    if padding is not None:
        scores = scores.masked_fill(padding, -torch.inf)
    return scores.softmax(-1)
