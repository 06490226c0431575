"""The CUDA kernels on the host: builds the shim's module and lets it serve CPU tensors."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest
from torch import Tensor

from fastmtl.backends.native import memory

SHIM = Path(__file__).resolve().parent / "host_shim"
# What `make sanitize` builds the kernels with, in directories of their own.
SANITIZE = os.environ.get("FASTMTL_SANITIZE", "")
_NAME = "-".join(["cuda_host", sys.implementation.cache_tag or "", *SANITIZE.split(",")])
BUILD = SHIM.parents[2] / "build" / _NAME.rstrip("-")

# Of all launches, as tests/cuda/host_shim/device.cpp has it: a launch on another one fails.
DEVICE, STREAM = 1, 0x57EA


@cache
def kernels() -> ModuleType:
    """The module, built where it is out of date; skips the test without a compiler."""
    pybind11 = pytest.importorskip("pybind11")
    tools = Path(sys.executable).parent
    cmake = shutil.which("cmake", path=str(tools)) or shutil.which("cmake")
    ninja = shutil.which("ninja", path=str(tools)) or shutil.which("ninja")
    if not cmake or not ninja or not shutil.which("c++"):
        pytest.skip("no compiler, CMake or Ninja to build the CUDA kernels for the host with")
    # The runtime of sanitizers is for this process, and would slow the compiler down.
    environment = {name: text for name, text in os.environ.items() if name != "LD_PRELOAD"}
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _forget_another_checkout()
        for command in (
            [
                *(cmake, "-G", "Ninja", "-S", str(SHIM), "-B", str(BUILD)),
                f"-DCMAKE_MAKE_PROGRAM={ninja}",
                f"-DPython_EXECUTABLE={sys.executable}",
                f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
                f"-DSANITIZE={SANITIZE}",
            ],
            [cmake, "--build", str(BUILD)],
        ):
            result = subprocess.run(command, capture_output=True, text=True, env=environment)
            assert result.returncode == 0, result.stdout + result.stderr
    (path,) = BUILD.glob("_cuda_host.*.so")
    spec = spec_from_file_location("_cuda_host", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _forget_another_checkout() -> None:
    """Let CMake start anew in a directory that was copied from elsewhere; it would refuse to."""
    cache = BUILD / "CMakeCache.txt"
    if cache.exists() and f"CMAKE_HOME_DIRECTORY:INTERNAL={SHIM}\n" not in cache.read_text():
        cache.unlink()


@contextmanager
def serving() -> Iterator[None]:
    """Runs the native backend's CPU calls on the CUDA kernels, as for a CUDA tensor."""

    def execution(tensor: Tensor, workspace: Tensor | None = None) -> tuple[int, int, int]:
        return DEVICE, STREAM, memory.address(workspace)

    with (
        mock.patch.object(memory, "cpu", kernels()),
        mock.patch.object(memory, "execution", execution),
        mock.patch.object(memory, "workspace", memory.allocate_workspace),
        mock.patch.object(memory, "device_of", return_value=DEVICE),
    ):
        yield
