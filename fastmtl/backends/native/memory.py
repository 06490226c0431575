"""Where tensors become pointers: the two extension modules, and how a kernel is told of memory.

What is left to see to after the checks of `fastmtl.ops` is dtypes that the kernels read, contiguity
where they want it, buffers for the results, the device and stream that a kernel runs on, and that
every tensor outlives the call.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

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
}
REDUCTIONS = {"task": 0, "sum": 1, "mean": 2, "none": 3}
ABSENT = (0, 0, 0, 0)


def _extension(name: str) -> tuple[ModuleType | None, str]:
    """An extension module, or why it is not there."""
    try:
        return import_module(name), ""
    except ImportError as error:
        return None, f"{name} is not built ({error})"


cpu, _CPU_REASON = _extension("fastmtl._cpu")
cuda, _CUDA_REASON = _extension("fastmtl._cuda")


def unusable(device: str) -> str:
    """Why the kernels for a type of device do not run here; empty where they do."""
    if device == "cpu":
        return _CPU_REASON
    return _unusable_cuda() if device == "cuda" else f"no native kernels for {device}"


@cache
def _unusable_cuda() -> str:
    if cuda is None:
        return _CUDA_REASON
    if not torch.cuda.is_available():
        return "PyTorch sees no CUDA device"
    torch.cuda.init()
    reason = cuda.unusable()
    return f"fastmtl._cuda does not run on this device ({reason})" if reason else ""


def isa() -> str:
    """The instruction set that the CPU kernels use here; empty where they are not built."""
    return "" if cpu is None else str(cpu.isa())


def use_isa(name: str) -> bool:
    """Run the CPU kernels of "plain", "avx2" or "avx512"; False where the processor has it not."""
    return cpu is not None and bool(cpu.use_isa(name))


def module(tensor: Tensor) -> Any:
    """The kernels for a tensor's device; chosen only where they are built."""
    return cuda if tensor.is_cuda else cpu


def execution(tensor: Tensor, workspace: Tensor | None = None) -> int | tuple[int, int, int]:
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
    size = getattr(module(tensor), f"{op}_workspace")(tensor.get_device(), *sizes)
    return tensor.new_empty(size // 8, dtype=torch.float64) if size else None


def current_stream(device: int) -> int:
    """The handle of PyTorch's current stream on a CUDA device."""
    # The documented way, torch.cuda.current_stream(device).cuda_stream, takes as long as a launch.
    return int(torch._C._cuda_getCurrentRawStream(device))


def matrix(tensor: Tensor) -> tuple[int, ...]:
    """Data, dtype and strides of a 2-D tensor."""
    return (tensor.data_ptr(), DTYPES[tensor.dtype], *tensor.stride())


def address(tensor: Tensor | None) -> int:
    """Where a tensor's data lies; 0 for none."""
    return 0 if tensor is None else tensor.data_ptr()
