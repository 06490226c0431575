"""A few trials of both programs; `make torture` and `make fuzz` make many."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FEW = [
    pytest.param(["tests.torture", "--kills", "3", "--only", "random"], id="kills"),
    pytest.param(["tests.torture", "--kills", "10"], id="all", marks=pytest.mark.slow),
    pytest.param(["tests.torture.files", "--cases", "50"], id="files", marks=pytest.mark.slow),
]


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")
@pytest.mark.parametrize("arguments", FEW)
def test_nothing_bad_comes_of_it(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
