"""fastmtl: fused kernels, task balancing and models for multi-task training in PyTorch.

Its parts are imported when they are first used: `import fastmtl` alone does not load PyTorch, so
that the command line answers at once.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastmtl import balancing, data, models, nn, ops
    from fastmtl.backends import use_backend

try:
    __version__ = version("fastmtl-torch")
except PackageNotFoundError:
    __version__ = "0+unknown"

__all__ = ["__version__", "balancing", "data", "models", "nn", "ops", "use_backend"]


def __getattr__(name: str) -> Any:
    if name == "use_backend":
        return import_module("fastmtl.backends").use_backend
    if name in __all__:
        return import_module(f"fastmtl.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
