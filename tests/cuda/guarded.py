"""Memory with a page behind it, and one before, that no access outlives."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_PAGE, _NOTHING = mmap.PAGESIZE, 0  # PROT_NONE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def empty(size: int, dtype: torch.dtype) -> Tensor:
    """Elements that end where a page begins which nothing may read or write; NaN, as far as the
    dtype has it. 16 divides their address if it divides their bytes."""
    if not size:
        return torch.empty(0, dtype=dtype)
    used = size * dtype.itemsize
    pages = -(-used // _PAGE)
    memory = mmap.mmap(-1, (pages + 2) * _PAGE)
    buffer = (ctypes.c_char * len(memory)).from_buffer(memory)
    for page in (0, pages + 1):
        if _libc.mprotect(ctypes.addressof(buffer) + page * _PAGE, _PAGE, _NOTHING):
            raise OSError(ctypes.get_errno(), "mprotect")
    offset = (pages + 1) * _PAGE - used
    flat = torch.frombuffer(memory, dtype=dtype, count=size, offset=offset)
    return flat.fill_(float("nan")) if dtype.is_floating_point else flat


def copy(values: Tensor) -> Tensor:
    """The values, as a dense tensor in such memory."""
    return empty(values.numel(), values.dtype).view(values.shape).copy_(values)


class Guarded(TorchDispatchMode):
    """Gives what is computed in the block such memory wherever it is allocated to be filled."""

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in ("empty", "new_empty", "empty_like", "empty_strided"):
            dense = result.numel() and result.is_contiguous() and result.device.type == "cpu"
            return empty(result.numel(), result.dtype).view(result.shape) if dense else result
        return result
