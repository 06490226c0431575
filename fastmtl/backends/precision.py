"""The precision in which an op accumulates."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, float32 for everything narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """A context in which autocast leaves matrix products in the dtype of their operands."""
    if device.type == "meta":  # has no autocast, and torch raises where it is asked about it
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
