"""The precision in which an op accumulates."""

from __future__ import annotations

import torch


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, float32 for everything narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def full_precision(device: torch.device) -> torch.autocast:
    """A context in which autocast leaves matrix products in the dtype of their operands."""
    return torch.autocast(device.type, enabled=False)
