"""The device that a run was asked to use."""

from __future__ import annotations

import torch


def resolve_device(name: str) -> torch.device:
    """The torch device that a name stands for.

    Args:
        name: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", ...

    Raises:
        ValueError: for another name, and if this machine has no such device.

    Examples:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device: expected auto, cpu, cuda or cuda:N, got {name!r}") from None
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise ValueError(f"device: {name!r} is not available, this machine has {count} GPUs")
    elif device.type != "cpu":
        raise ValueError(f"device: expected auto, cpu, cuda or cuda:N, got {name!r}")
    return device
