"""What a fusion leaves out where samples lack some of their modalities."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl._checks import need_device, need_shape, need_tensor

# The importance of a vertex that is absent: no edge at it has a part in a softmax over the edges.
# Two of them are not infinite in float16; minus infinity would have no gradient.
ABSENT = -3e4


def need_present(name: str, present: Tensor, shape: tuple[int, ...], x: Tensor) -> None:
    """Raise unless `present` is a bool tensor of `shape` on the device of x."""
    need_tensor(name, present)
    if present.dtype != torch.bool:
        raise TypeError(f"{name}: expected bool, True where present, got {present.dtype}")
    need_shape(name, present, shape, "one value a sample (and modality)")
    need_device(name, present, "x", x)


def without_absent(vertices: Tensor, present: Tensor) -> Tensor:
    """Vertices (B, P, D) with 0 for those that are not `present` (B, P)."""
    return vertices.masked_fill(~present.unsqueeze(2), 0.0)


def mean_of_present(vertices: Tensor, present: Tensor) -> Tensor:
    """The mean (B, D) over the vertices (B, P, D), of which the absent are 0; NaN of none."""
    return vertices.sum(1) / present.sum(1, keepdim=True)
