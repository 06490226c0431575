"""Fixtures that every part of the suite shares, and the one profile of its property tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import fastmtl
from fastmtl.backends import native, unavailable
from tests.cuda import host

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

if find_spec("hypothesis"):  # tests/gpu runs without it, on machines that may not have it
    from hypothesis import HealthCheck, settings

    # The same examples in every run, as many as a machine of any speed takes. The backend and the
    # random state of a test are the same for all its examples, which is what they should be.
    settings.register_profile(
        "fastmtl",
        deadline=None,
        derandomize=True,
        max_examples=20,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    settings.load_profile("fastmtl")

# The native kernels are compiled once for every instruction set.
ISAS = ["plain", "avx2", "avx512"]
# The GPU kernels take long on the CPU, and Triton's need its interpreter, TRITON_INTERPRET=1: what
# of them is tested in every run is in tests/gpu. "native-cuda" runs the CUDA kernels on the host.
ON_GPUS = [pytest.param(name, marks=pytest.mark.slow) for name in ("native-cuda", "triton")]


@contextmanager
def running_on(where: str) -> Iterator[str]:
    """Runs the ops on a backend, of which the native one may be followed by an instruction set;
    skips the test where this machine does not have it."""
    name, _, variant = where.partition("-")
    if reason := unavailable(name):
        pytest.skip(reason)
    with ExitStack() as stack:
        stack.enter_context(fastmtl.use_backend(name))
        if variant == "cuda":
            stack.enter_context(host.serving())
        elif variant:
            stack.callback(native.use_isa, native.isa())
            if not native.use_isa(variant):
                pytest.skip(f"this processor has no {variant}")
        yield name


@pytest.fixture(params=["reference", "native", *ON_GPUS])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once on every backend, the native one on the processor's best instructions."""
    with running_on(request.param) as name:
        yield name


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once on the native kernels of every instruction set."""
    with running_on(f"native-{request.param}"):
        yield request.param


@pytest.fixture(params=["reference", *(f"native-{isa}" for isa in ISAS), ON_GPUS[0]])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once on the reference and on every instruction set of the native backend, for
    the numbers: everything that computes them is compiled anew for each. Triton's are those of
    tests/gpu/test_parity.py; its interpreter would take minutes for the sizes here."""
    with running_on(request.param) as name:
        yield name


@pytest.fixture
def poison() -> Iterator[None]:
    """Fills what torch.empty returns with NaN, so that an element nobody wrote shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def shared_data() -> Path:
    """The directory of real data sets beside the checkout; the test skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real data sets (../shared/data) are not on this machine")
    return SHARED_DATA


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)
