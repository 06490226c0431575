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


def in_half(**tensors: Tensor) -> tuple[Tensor, ...]:
    """The named tensors, of one floating dtype, as autocast gives the operands of a matrix product;
    TypeError for others.

    Inside autocast the first is in its dtype. The others are parameters: float32 ones stay so, for
    the op to round where it multiplies, so that their gradients are not rounded on their way.
    float64 is left as it is, as torch leaves it.
    """
    (name, first), *_ = tensors.items()
    need_floating(name, first)
    device = first.device.type
    autocast = not first.is_meta and torch.is_autocast_enabled(device)
    found = in_one_dtype(**tensors)
    if not autocast or found[0].dtype == torch.float64:
        return found
    half = torch.get_autocast_dtype(device)
    parameters = list(tensors.values())[1:]
    return found[0].to(half), *(p if p.dtype == torch.float32 else p.to(half) for p in parameters)


def need_one_dtype(**tensors: Tensor) -> None:
    """Raise unless the named tensors are of one floating dtype."""
    (first_name, first), *others = tensors.items()
    need_floating(first_name, first)
    for name, tensor in others:
        need_floating(name, tensor)
        need_dtype(name, tensor, first_name, first)
