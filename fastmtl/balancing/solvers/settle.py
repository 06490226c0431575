"""Leaving an iteration early, where that costs no wait for a device."""

from __future__ import annotations

import torch
from torch import Tensor


def is_settled(settled: Tensor) -> bool:
    """Whether `settled` () holds, as far as that can be told without waiting for a device."""
    return not _must_wait(settled.device) and bool(settled)


def _must_wait(device: torch.device) -> bool:
    return device.type != "cpu"
