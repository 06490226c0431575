"""Variable-length sequences: what every layer over time shares about `lengths` and padding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastmtl.ops._checks import need_shape, need_tensor


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
    _need_range(lengths, steps, name)


@torch.compiler.disable(reason="reads the lengths on the host")  # type: ignore[untyped-decorator]
def _need_range(lengths: Tensor, steps: int, name: str) -> None:
    if lengths.numel() == 0:
        return
    low, high = (int(bound) for bound in lengths.aminmax())
    if low < 1 or high > steps:
        raise ValueError(
            f"{name}: expected lengths from 1 to {steps}, got values from {low} to {high}"
        )


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
