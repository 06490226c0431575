"""The precision in which an op accumulates, and products that do not lose it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

# Compute capabilities of the first tensor cores that take a dtype.
_TENSOR_CORES = {torch.float16: (7, 0), torch.bfloat16: (8, 0)}


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, float32 for everything narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """A context in which autocast leaves matrix products in the dtype of their operands."""
    if device.type == "meta":  # has no autocast, and torch raises where it is asked about it
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def factor(x: Tensor) -> Tensor:
    """`x` as a factor of `product`: itself where halves are multiplied as they are, else widened.

    torch multiplies halves into float32 on CUDA alone. Its results on the CPU are halves, whose
    rounding is an error as large as that of the inputs or larger, so that there they are widened.
    """
    return x if _multiplies_halves(x) else x.to(accumulation_dtype(x.dtype))


def product(
    a: Tensor,  # (M, K) or (T, M, K)
    b: Tensor,  # (K, N) or (T, K, N)
) -> Tensor:
    """The product of two factors, summed up and left in the dtype that `a` accumulates in."""
    dtype = accumulation_dtype(a.dtype)
    if a.dtype == dtype:
        return a @ b
    if a.dim() == 2:
        return torch.mm(a, b, out_dtype=dtype)
    return torch.bmm(a, b.expand(len(a), -1, -1), out_dtype=dtype)


def _multiplies_halves(x: Tensor) -> bool:
    least = _TENSOR_CORES.get(x.dtype)
    if least is None or not x.is_cuda or not torch.version.cuda:
        return False
    return torch.cuda.get_device_capability(x.device) >= least
