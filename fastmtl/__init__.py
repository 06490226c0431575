"""fastmtl: fused kernels, task balancing and models for multi-task training in PyTorch.

Its parts are imported when they are first used: `import fastmtl` alone does not load PyTorch, so
that the command line answers at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastmtl import balancing, data, models, nn, ops
    from fastmtl.backends import use_backend

    __version__: str

__all__ = ["__version__", "balancing", "data", "models", "nn", "ops", "use_backend"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name == "use_backend":
        return import_module("fastmtl.backends").use_backend
    if name in __all__:
        return import_module(f"fastmtl.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    # To import this takes as long as a third of what a decoding process loads.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("fastmtl-torch")
    except PackageNotFoundError:
        return "0+unknown"
