"""The search for races between the threads of a CUDA kernel finds those that are there."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.cuda import host


@pytest.mark.skipif(bool(host.SANITIZE), reason="other sanitizers watch the kernels")
def test_races_are_found() -> None:
    host.kernels()
    environment = os.environ | {"FASTMTL_RACES": "1"}
    result = subprocess.run(
        [host.BUILD / "racing"], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stdout
    assert result.stderr.count("a race in shared memory") == 4
    assert result.stderr.count("a race in global memory") == 2
