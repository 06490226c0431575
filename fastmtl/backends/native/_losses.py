"""What the kernels of the losses are told in the same way."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl.backends.native import memory

# The numbers of csrc/kernels.h.
REDUCTIONS = {"task": 0, "sum": 1, "mean": 2, "none": 3}


def vector(weight: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A weight as the kernels read it."""
    return None if weight is None else weight.to(dtype).contiguous()


def broadcast(grad: Tensor) -> tuple[int, ...]:
    """The gradient of a reduced loss as a matrix over the elements, with strides of 0."""
    data, strides = grad.data_ptr() or memory.address(grad), grad.stride()
    return (data, memory.DTYPES[grad.dtype], *(0,) * (2 - len(strides)), *strides)
