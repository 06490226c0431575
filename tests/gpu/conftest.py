"""Where the GPU kernels run: on a device where there is one, and on the CPU otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

import fastmtl
from fastmtl.backends import native, triton
from tests.cuda import host

# What cuBLAS wants before it promises the same bits in every run.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.fixture(params=["cuda", "triton"])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Runs the test on the CUDA and on the Triton kernels, for tensors on the device it gives.

    Without a GPU, the CUDA kernels run in the host shim and the Triton kernels in the interpreter.
    """
    backend = native if request.param == "cuda" else triton
    name = "native" if request.param == "cuda" else "triton"
    if torch.cuda.is_available() and not triton.INTERPRETED:
        reason = backend.why_not("cuda")
        if reason:
            pytest.skip(reason)
        with fastmtl.use_backend(name):
            yield torch.device("cuda")
    elif request.param == "cuda":
        with host.serving(), fastmtl.use_backend(name):
            yield torch.device("cpu")
    else:
        if not triton.INTERPRETED:
            pytest.skip("no GPU, and Triton's interpreter is not on (TRITON_INTERPRET=1)")
        with fastmtl.use_backend(name):
            yield torch.device("cpu")


@pytest.fixture(autouse=True)
def _poison() -> Iterator[None]:
    """Fills what torch.empty returns with NaN, so that an element nobody wrote shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
