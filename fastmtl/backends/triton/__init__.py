"""The Triton backend: portable kernels for any GPU that Triton compiles for.

The functions have the signatures of `fastmtl.backends.reference`. Triton itself is imported with
the first call. Under its interpreter (TRITON_INTERPRET=1 when this package is imported) the kernels
also serve CPU tensors, for tests.
"""

from __future__ import annotations

import os
import shutil
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from fastmtl.backends.reference import task_grad_gramian_backward, task_grad_norms_backward

__all__ = ["task_grad_gramian_backward", "task_grad_norms_backward", "why_not"]

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

_HOMES = {
    "focal_loss": "focal_loss",
    "grouped_focal_loss": "grouped_focal_loss",
    "task_grad_norms": "rows",
    "task_grad_gramian": "rows",
    "stacked_norms": "rows",
    "least_norm_weights": "least_norm",
    "fusion_edge_weights": "graph_fusion",
    "graph_fusion": "graph_fusion",
}


def why_not(op: str, device: str) -> str:
    """Why this backend does not serve `op` on `device`; empty if it does."""
    if op not in _HOMES:
        return "no Triton kernel"
    if device == "cpu":
        return _missing() if INTERPRETED else "Triton kernels run on GPUs"
    return _unusable() if device == "cuda" else f"no Triton kernels for {device}"


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name.removesuffix("_forward").removesuffix("_backward"))
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


@cache
def _missing() -> str:
    return "" if find_spec("triton") else "triton is not installed"


@cache
def _unusable() -> str:
    if _missing():
        return _missing()
    if not torch.cuda.is_available():
        return "PyTorch sees no CUDA device"
    compilers = (os.environ.get("CC"), "cc", "gcc", "clang")
    found = any(name and shutil.which(name) for name in compilers)
    return "" if found else "triton finds no C compiler to build its launcher with"
