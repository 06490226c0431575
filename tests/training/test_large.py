"""Training on a file that is larger than the memory it may take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SAMPLES, FEATURES = 1 << 18, 4096
# Runs a command, and tells the most memory that it held (in KiB on Linux).
_MEASURED = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps([done.returncode, most << 10, done.stderr]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 GiB of float32 features that take no room on the disk: a few values, and a hole."""
    path = tmp_path_factory.mktemp("large")
    x = np.lib.format.open_memmap(path / "x.npy", "w+", np.float32, (SAMPLES, FEATURES))
    x[:100] = np.random.default_rng(0).standard_normal((100, FEATURES))
    x.flush()
    np.save(path / "y.npy", np.random.default_rng(1).integers(0, 2, (SAMPLES, 2)))
    assert (path / "x.npy").stat().st_size > 4 << 30
    return path


@pytest.mark.slow
def test_four_gigabytes_are_trained_on_and_predicted_with_one_and_a_half(
    folder: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FASTMTL_MEMORY_LIMIT": "1500MB"}
    data = ["--data", str(folder)]
    run = ["--out", str(tmp_path / "run"), "--model", "hgfn", "--epochs", "1", "--batch-size"]
    small = ["512", "--hidden-size", "4", "--head-size", "4"]
    commands = [
        ["train", *data, *run, *small],
        ["evaluate", str(tmp_path / "run"), *data, "--split", "test"],
        ["predict", str(tmp_path / "run"), *data, "--out", str(tmp_path / "out.csv")],
    ]
    for command in commands:
        fastmtl = [sys.executable, "-m", "fastmtl", *command]
        done = subprocess.run(
            [sys.executable, "-c", _MEASURED, *fastmtl],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        code, most, errors = json.loads(done.stdout)
        assert code == 0, errors
        assert most < 1.5e9
