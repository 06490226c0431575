"""fastmtl: fused kernels, task balancing and models for multi-task training in PyTorch."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from fastmtl import balancing, data, models, nn, ops
from fastmtl.backends import use_backend

try:
    __version__ = version("fastmtl-torch")
except PackageNotFoundError:
    __version__ = "0+unknown"

__all__ = ["__version__", "balancing", "data", "models", "nn", "ops", "use_backend"]
