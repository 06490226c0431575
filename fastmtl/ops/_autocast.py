"""Operands of one op in one dtype."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl._checks import need_dtype, need_floating


def in_one_dtype(**tensors: Tensor) -> tuple[Tensor, ...]:
    """The named tensors, of one floating dtype; TypeError for others.

    Inside autocast they are promoted to their widest common dtype. Layers under autocast emit half
    precision while parameters stay float32, so that operands of one op can differ in dtype through
    no fault of the caller.
    """
    found = tuple(tensors.values())
    need_floating(next(iter(tensors)), found[0])
    # The meta device has no autocast, and torch raises where it is asked about it.
    if found[0].is_meta or not torch.is_autocast_enabled(found[0].device.type):
        need_one_dtype(**tensors)
        return found
    for name, tensor in tensors.items():
        need_floating(name, tensor)
    dtype = found[0].dtype
    for tensor in found[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return tuple(tensor.to(dtype) for tensor in found)


def need_one_dtype(**tensors: Tensor) -> None:
    """Raise unless the named tensors are of one floating dtype."""
    (first_name, first), *others = tensors.items()
    need_floating(first_name, first)
    for name, tensor in others:
        need_floating(name, tensor)
        need_dtype(name, tensor, first_name, first)
