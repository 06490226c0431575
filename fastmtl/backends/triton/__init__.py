"""The Triton backend: portable kernels for any GPU that Triton compiles for.

Under Triton's interpreter (TRITON_INTERPRET=1 when this package is imported) the kernels also serve
CPU tensors, for tests.
"""

from __future__ import annotations

import os
import shutil
from functools import cache
from importlib.util import find_spec

import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def why_not(device: str) -> str:
    """Why the kernels do not run on a type of device; empty where they do."""
    if device == "cpu":
        return _missing() if INTERPRETED else "Triton kernels run on GPUs"
    return _why_not_cuda() if device == "cuda" else f"no Triton kernels for {device}"


@cache
def _missing() -> str:
    return "" if find_spec("triton") else "triton is not installed"


@cache
def _why_not_cuda() -> str:
    if _missing():
        return _missing()
    if not torch.cuda.is_available():
        return "PyTorch sees no CUDA device"
    compilers = (os.environ.get("CC"), "cc", "gcc", "clang")
    found = any(name and shutil.which(name) for name in compilers)
    return "" if found else "triton finds no C compiler to build its launcher with"
