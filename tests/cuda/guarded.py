"""Memory that no access leaves: to the byte for the CUDA kernels on the host, which say what they
touch, and to the page for everything else."""

from __future__ import annotations

import ctypes
import mmap
import weakref
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from tests.cuda import host

_PAGE, _NOTHING = mmap.PAGESIZE, 0  # PROT_NONE
_SLACK = 16  # bytes, so that what goes wrong by an element is told before a page ends the process
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


@cache
def _bounds() -> ctypes.CDLL:
    """What tests/cuda/host_shim/bounds.cpp has for Python."""
    library = ctypes.CDLL(str(host.kernels().__file__))
    address, size = ctypes.c_void_p, ctypes.c_size_t
    library.host_shim_confine.argtypes = (address, size, address, size)
    library.host_shim_release.argtypes = (address, size)
    return library


def empty(size: int, dtype: torch.dtype, aligned: bool = True) -> Tensor:
    """Elements with a page before them and one behind that nothing may read or write, and of which
    a kernel may touch no byte more; NaN, as far as the dtype has it. 16 divides their address, or
    does not."""
    if not size:
        return torch.empty(0, dtype=dtype)
    used = size * dtype.itemsize
    pages = -(-(used + 4 * _SLACK) // _PAGE)
    memory = mmap.mmap(-1, (pages + 2) * _PAGE)
    first = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + _PAGE
    for page in (first - _PAGE, first + pages * _PAGE):
        if _libc.mprotect(page, _PAGE, _NOTHING):
            raise OSError(ctypes.get_errno(), "mprotect")
    offset = (pages + 1) * _PAGE - used - _SLACK
    if aligned:
        offset -= offset % 16
    elif offset % 16 == 0:
        offset -= dtype.itemsize
    _bounds().host_shim_confine(first, pages, first - _PAGE + offset, used)
    weakref.finalize(memory, _bounds().host_shim_release, first, pages)
    flat = torch.frombuffer(memory, dtype=dtype, count=size, offset=offset)
    return flat.fill_(float("nan")) if dtype.is_floating_point else flat


def copy(values: Tensor, aligned: bool = True) -> Tensor:
    """The values, as a dense tensor in such memory."""
    return empty(values.numel(), values.dtype, aligned).view(values.shape).copy_(values)


class Guarded(TorchDispatchMode):
    """Gives what is computed in the block such memory wherever some is allocated."""

    def __init__(self, aligned: bool = True) -> None:
        super().__init__()
        self.aligned = aligned

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        before = {_memory(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        if func is torch.ops.aten.lift_fresh.default:
            before.clear()

        def moved(tensor: Tensor) -> Tensor:
            return tensor if _memory(tensor) in before else self._moved(tensor)

        return tree_map_only(Tensor, moved, func(*args, **kwargs))

    def _moved(self, tensor: Tensor) -> Tensor:
        if tensor.device.type != "cpu" or tensor.layout != torch.strided or not tensor.numel():
            return tensor
        size = tensor.untyped_storage().nbytes() // tensor.dtype.itemsize
        everything = copy(tensor.as_strided((size,), (1,), 0), self.aligned)
        return everything.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else 0
