"""Leaving an iteration early, where that costs no wait for a device."""

from __future__ import annotations

import torch
from torch import Tensor


def is_over(running: Tensor) -> bool:
    """Whether nothing changes any more, where that can be told without waiting for a device and
    without looking into a transform of torch.func."""
    if running.device.type != "cpu" or torch._C._are_functorch_transforms_active():
        return False
    return not bool(running)
