"""The CUDA kernels under compute-sanitizer, at small sizes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device"),
]
SECONDS = 100


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck"])
def test_sanitizer(tool: str) -> None:
    sanitizer = shutil.which("compute-sanitizer") or shutil.which(
        "/usr/local/cuda/bin/compute-sanitizer"
    )
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not installed")
    # PyTorch's allocator would hide a write behind a tensor.
    result = subprocess.run(
        [
            *("env", "PYTORCH_NO_CUDA_MEMORY_CACHING=1", sanitizer, "--tool", tool),
            *("--kernel-name", "kernel_substring=fastmtl", "--error-exitcode", "9"),
            *(sys.executable, "-m", "tests.gpu.small_run"),
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    if "Device not supported" in result.stdout:
        pytest.skip("compute-sanitizer does not support this device")
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
