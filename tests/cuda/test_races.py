"""The search for races between the threads of a CUDA kernel finds those that are there."""

from __future__ import annotations

import subprocess

from tests.cuda import host


def test_races_are_found() -> None:
    host.kernels()
    result = subprocess.run([host.BUILD / "racing"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    assert result.stderr.count("a race in shared memory") == 4
    assert result.stderr.count("a race in global memory") == 2
