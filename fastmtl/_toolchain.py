"""What compilers this machine has."""

from __future__ import annotations

import os
import shutil


def cxx_compiler() -> str | None:
    """The C++ compiler that a build, or torch.compile for the CPU, would take."""
    names = (os.environ.get("CXX"), "c++", "g++", "clang++", "cl")
    return next((found for name in names if name and (found := shutil.which(name))), None)
