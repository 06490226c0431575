"""Drives CMake and Ninja; everything about the native core is in CMakeLists.txt.

FASTMTL_NATIVE=auto (default) builds the extension where a compiler is found and installs pure
Python with a warning where the build fails; on makes a failed build an error; off does not try.
FASTMTL_CUDA is the same for the CUDA kernels, and auto builds them where there is both nvcc and an
NVIDIA driver; on needs nvcc alone. CUDA_ARCHS lists compute capabilities ("90", "80;90", "native").
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


def setting(name: str) -> str:
    """An environment variable that is auto, on or off."""
    value = os.environ.get(name, "auto")
    if value not in ("auto", "on", "off"):
        raise SystemExit(f"{name}: expected auto, on or off, got {value!r}")
    return value


NATIVE, CUDA = setting("FASTMTL_NATIVE"), setting("FASTMTL_CUDA")


def nvcc() -> str:
    """Where nvcc is, on the path or in CUDA's own directories; empty where it is not."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    compilers = [os.environ.get("CUDACXX"), "nvcc", *(f"{home}/bin/nvcc" for home in homes if home)]
    return next(filter(None, (shutil.which(name) for name in compilers if name)), "")


def has_cuda() -> bool:
    """Whether this machine has both nvcc and an NVIDIA driver."""
    drivers = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidiactl"), Path("/dev/dxg"))
    return bool(nvcc()) and any(driver.exists() for driver in drivers)


class CMakeBuild(build_ext):
    """Builds all extensions in one CMake run."""

    def run(self) -> None:
        # Each module by a CMake run of its own, so that one is there where the other fails.
        if NATIVE != "off":
            self._try("_cpu", [], fatal=NATIVE == "on")
        if CUDA == "on" or (CUDA == "auto" and has_cuda()):
            archs = os.environ.get("CUDA_ARCHS", "")
            options = ["-DFASTMTL_CUDA=ON", f"-DFASTMTL_CUDA_ARCHS={archs}"]
            # CMake itself looks on the path alone.
            options += [f"-DCMAKE_CUDA_COMPILER={compiler}"] if (compiler := nvcc()) else []
            self._try("_cuda", options, fatal=CUDA == "on")

    def _try(self, module: str, options: list[str], fatal: bool) -> None:
        try:
            self._build(module, options)
        except (OSError, subprocess.CalledProcessError, ImportError) as error:
            if fatal:
                raise
            # A pure-Python install is a working one: `fastmtl info` tells what serves each op.
            self.warn(f"fastmtl.{module} was not built ({error}); another backend serves instead")

    def _build(self, module: str, options: list[str]) -> None:
        import pybind11

        build = Path(self.build_temp).resolve() / module
        build.mkdir(parents=True, exist_ok=True)
        # CMake refuses to go on in the build directory of a checkout that was moved or copied.
        cache = build / "CMakeCache.txt"
        if cache.exists() and f"CMAKE_HOME_DIRECTORY:INTERNAL={ROOT}\n" not in cache.read_text():
            cache.unlink()
        install = ROOT if self.inplace else Path(self.build_lib).resolve()
        configure = [
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DCMAKE_INSTALL_PREFIX={install}",
            "-DCMAKE_BUILD_TYPE=Release",
            *options,
        ]
        cmake = self._cmake()
        run = [cmake, "-G", "Ninja", "-S", str(ROOT), "-B", str(build), *configure]
        subprocess.run(run, check=True)
        subprocess.run([cmake, "--build", str(build), "--target", module], check=True)
        run = [cmake, "--install", str(build), "--component", module, "--strip"]
        subprocess.run(run, check=True)

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
    ext_modules=[] if NATIVE == CUDA == "off" else [Extension("fastmtl._cpu", [])],
    cmdclass={"build_ext": CMakeBuild},
)
