"""The backends that every op is tested on, and uninitialised memory that cannot pass unnoticed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch

import fastmtl
from fastmtl.backends import native, unavailable
from tests.cuda import host

# The native kernels are compiled once for every instruction set, so that each is a backend here.
ISAS = ("plain", "avx2", "avx512")
CASES = ["reference", *(f"native-{isa}" for isa in ISAS)]
# The GPU kernels take long on the CPU, and Triton's need its interpreter, TRITON_INTERPRET=1: what
# of them is tested in every run is in tests/gpu. "cuda" runs the CUDA kernels on the host.
CASES += [pytest.param(name, marks=pytest.mark.slow) for name in ("native-cuda", "triton")]


@pytest.fixture(params=CASES)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once on every backend; skips one that this machine does not have."""
    name, _, isa = request.param.partition("-")
    reason = unavailable(name)
    if reason:
        pytest.skip(reason)
    before = native.isa()
    if isa in ISAS and not native.use_isa(isa):
        pytest.skip(f"this processor has no {isa}")
    with fastmtl.use_backend(name), host.serving() if isa == "cuda" else nullcontext():
        yield name
    if before:
        native.use_isa(before)


@pytest.fixture(autouse=True)
def _poison() -> Iterator[None]:
    """Fills what torch.empty returns with NaN, so that an element nobody wrote shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
