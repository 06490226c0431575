"""Where tensors become pointers: the two extension modules, and how a kernel is told of memory.

What is left to see to after the checks of `fastmtl.ops` is dtypes that the kernels read, contiguity
where they want it, buffers for the results, the device and stream that a kernel runs on, and that
every tensor outlives the call.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.machinery import PathFinder
from math import inf
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor

# The numbers of csrc/kernels.h.
DTYPES = {
    torch.float32: 0,
    torch.float64: 1,
    torch.bfloat16: 2,
    torch.float16: 3,
    torch.uint8: 4,
    torch.bool: 4,
    torch.int64: 5,
    torch.int32: 6,
}
_HERE = Path(__file__).resolve().parents[2]
_ABSENT = (0, 0, 0, 0)

# What a kernel is passed: a number, an address, a matrix, a place to run, or sizes.
Argument = int | float | tuple[int, ...]


class Extension(Protocol):
    """An extension module: its kernels, by name, and what it says of them."""

    device: str
    kernels: frozenset[str]
    limits: dict[str, int]

    def isa(self) -> str: ...
    def use_isa(self, name: str) -> bool: ...
    def unusable(self) -> str | None: ...
    def __getattr__(self, kernel: str) -> Callable[..., Any]: ...


def _extension(name: str) -> tuple[Extension | None, str]:
    """An extension module, or why it is not there."""
    try:
        return cast(Extension, import_module(name)), ""
    except ImportError as error:
        if there := hidden(name):
            return None, f"{name} is not in {_HERE}, which hides {there}"
        return None, f"{name} is not built ({error})"


def hidden(name: str = "fastmtl._cpu") -> str:
    """Where an extension module was installed, if not beside this package; empty if nowhere.

    In a checkout, Python takes the sources there for the package, and finds no kernels in them.
    """
    places = (Path(place, "fastmtl").resolve() for place in sys.path)
    spec = PathFinder.find_spec(name, [str(place) for place in places if place != _HERE])
    return (spec and spec.origin) or ""


cpu, _CPU_REASON = _extension("fastmtl._cpu")
cuda, _CUDA_REASON = _extension("fastmtl._cuda")


def why_not(device: str) -> str:
    """Why the kernels for a type of device do not run here; empty where they do."""
    if device == "cpu":
        return _CPU_REASON
    return _why_not_cuda() if device == "cuda" else f"no native kernels for {device}"


@cache
def _why_not_cuda() -> str:
    if cuda is None:
        return _CUDA_REASON
    if not torch.cuda.is_available():
        return "PyTorch sees no CUDA device"
    torch.cuda.init()
    if reason := cuda.unusable():
        return f"fastmtl._cuda ({cuda_build()}) does not run on this device ({reason})"
    return ""


def isa() -> str:
    """The instruction set that the CPU kernels use here; empty where they are not built."""
    return "" if cpu is None else cpu.isa()


def cuda_build() -> str:
    """What compiled the CUDA kernels, and for which devices; empty where they are not built."""
    if cuda is None:
        return ""
    compiler, _, architectures = cuda.isa().partition(" for ")
    return f"{compiler} for {', '.join(str(int(each) / 100) for each in architectures.split(','))}"


def use_isa(name: str) -> bool:
    """Run the CPU kernels of "plain", "avx2" or "avx512"; False where the processor has it not.

    Holds for the whole process, from the next kernel on: what is under way on another thread, and
    the backward pass of what is done, can have kernels of both, which differ by rounding.
    """
    return cpu is not None and cpu.use_isa(name)


def module(tensor: Tensor) -> Extension:
    """The kernels for a tensor's device; chosen only where they are built."""
    found = cuda if tensor.is_cuda else cpu
    assert found is not None
    return found


def limit(tensor: Tensor, name: str) -> float:
    """How large a problem the kernels for a tensor's device take."""
    return module(tensor).limits.get(name, inf)


def execution(tensor: Tensor, workspace: Tensor | None = None) -> Argument:
    """Where a kernel over `tensor` runs: CPU threads, or a CUDA device, its stream and memory."""
    if not tensor.is_cuda:
        return torch.get_num_threads()
    device = tensor.get_device()
    return device, current_stream(device), address(workspace)


def workspace(op: str, tensor: Tensor, *sizes: int) -> Tensor | None:
    """Memory that a CUDA kernel works in for `sizes`; the caller keeps it until the launch."""
    return allocate_workspace(op, tensor, *sizes) if tensor.is_cuda else None


def allocate_workspace(op: str, tensor: Tensor, *sizes: int) -> Tensor | None:
    """`workspace` for the kernels of a module that uses one."""
    size: int = getattr(module(tensor), f"{op}_workspace")(device_of(tensor), *sizes)
    return tensor.new_empty(size // 8, dtype=torch.float64) if size else None


def device_of(tensor: Tensor) -> int:
    """The number of a tensor's CUDA device."""
    return tensor.get_device()


def current_stream(device: int) -> int:
    """The handle of PyTorch's current stream on a CUDA device."""
    # The documented way, torch.cuda.current_stream(device).cuda_stream, takes as long as a launch.
    return int(torch._C._cuda_getCurrentRawStream(device))


def matrix(tensor: Tensor | None) -> tuple[int, ...]:
    """Data, dtype and strides of a 2-D tensor; zeros for none."""
    if tensor is None:
        return _ABSENT
    return (tensor.data_ptr() or address(tensor), DTYPES[tensor.dtype], *tensor.stride())


def address(tensor: Tensor | None) -> int:
    """Where a tensor's data lies; 0 for none."""
    if tensor is None:
        return 0
    data = tensor.data_ptr()
    if not data and tensor.numel():
        raise ValueError("expected tensors with memory, got one of zeros without: clone it first")
    return data
