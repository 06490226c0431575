"""Which devices the CUDA kernels are compiled for, where nobody asks for others."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WANTED = {"75", "80", "90", "100", "120"}


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("nvcc"), reason="no nvcc")
def test_all_that_are_wanted_and_the_compiler_knows(tmp_path: Path) -> None:
    pybind11 = pytest.importorskip("pybind11")
    tools = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [
        *("cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(tmp_path), "-DFASTMTL_CUDA=ON"),
        *(f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"),
    ]
    subprocess.run(command, check=True, env=os.environ | {"PATH": tools})
    listed = subprocess.run(["nvcc", "--list-gpu-arch"], capture_output=True, text=True).stdout
    known = set(re.findall(r"compute_(\d+)", listed))
    compiled = set(re.findall(r"code=\S*sm_(\d+)", (tmp_path / "build.ninja").read_text()))
    assert compiled == WANTED & known
