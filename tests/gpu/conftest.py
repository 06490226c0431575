"""Where the GPU kernels run: on a device where there is one, and on the CPU otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import fastmtl
from fastmtl.backends import native, triton
from tests.cuda import host

# What cuBLAS wants before it promises the same bits in every run.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
ON_A_GPU = torch.cuda.is_available() and not triton.INTERPRETED
BACKENDS = {"cuda": "native", "triton": "triton"}


def _why_not(kernels: str) -> str:
    if ON_A_GPU:
        return (native if kernels == "cuda" else triton).why_not("cuda")
    if kernels == "triton" and not triton.INTERPRETED:
        return "no GPU, and Triton's interpreter is not on (TRITON_INTERPRET=1)"
    return ""


def _where_it_runs(kernels: str) -> Any:
    # By a mark, so that nothing is set up for a test that cannot run.
    reason = _why_not(kernels)
    return pytest.param(kernels, marks=[pytest.mark.skip(reason=reason)] if reason else [])


@pytest.fixture(params=[_where_it_runs(kernels) for kernels in BACKENDS])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Runs the test on the CUDA and on the Triton kernels, for tensors on the device it gives.

    Without a GPU, the CUDA kernels run in the host shim and the Triton kernels in the interpreter.
    """
    with fastmtl.use_backend(BACKENDS[request.param]):
        if ON_A_GPU:
            yield torch.device("cuda")
        elif request.param == "cuda":
            with host.serving():
                yield torch.device("cpu")
        else:
            yield torch.device("cpu")


@pytest.fixture(autouse=True)
def _poison(poison: None) -> None:
    """For every test here."""
