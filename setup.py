"""Drives CMake and Ninja; everything about the native core is in CMakeLists.txt.

FASTMTL_NATIVE=auto (default) builds the extension where a compiler is found and installs pure
Python with a warning where the build fails; on makes a failed build an error; off does not try.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
NATIVE = os.environ.get("FASTMTL_NATIVE", "auto")
if NATIVE not in ("auto", "on", "off"):
    raise SystemExit(f"FASTMTL_NATIVE: expected auto, on or off, got {NATIVE!r}")


class CMakeBuild(build_ext):
    """Builds all extensions in one CMake run."""

    def run(self) -> None:
        try:
            self._build()
        except (OSError, subprocess.CalledProcessError, ImportError) as error:
            if NATIVE == "on":
                raise
            # A pure-Python install is a working one: `fastmtl info` tells what serves each op.
            self.warn(f"fastmtl's native kernels were not built ({error}); using pure Python")

    def _build(self) -> None:
        import pybind11

        build = Path(self.build_temp).resolve()
        build.mkdir(parents=True, exist_ok=True)
        install = ROOT if self.inplace else Path(self.build_lib).resolve()
        configure = [
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DCMAKE_INSTALL_PREFIX={install}",
            "-DCMAKE_BUILD_TYPE=Release",
        ]
        run = [self._cmake(), "-G", "Ninja", "-S", str(ROOT), "-B", str(build), *configure]
        subprocess.run(run, check=True)
        subprocess.run([self._cmake(), "--build", str(build)], check=True)
        subprocess.run([self._cmake(), "--install", str(build), "--strip"], check=True)

    @staticmethod
    def _cmake() -> str:
        """CMake of the build environment before any other on the path."""
        try:
            import cmake
        except ImportError:
            return "cmake"
        return str(Path(cmake.CMAKE_BIN_DIR) / "cmake")

    def get_outputs(self) -> list[str]:
        built = Path(self.build_lib, "fastmtl")
        return [str(path) for path in built.glob("_c*.so")]


setup(
    ext_modules=[] if NATIVE == "off" else [Extension("fastmtl._cpu", [])],
    cmdclass={"build_ext": CMakeBuild},
)
