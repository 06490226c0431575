"""The old name of `fastmtl.reproduce.systems`, for one release."""

from __future__ import annotations

import warnings

from fastmtl.reproduce.systems import TABLES, PaperTable, System

__all__ = ["TABLES", "PaperTable", "System"]

warnings.warn("fastmtl.systems is now fastmtl.reproduce.systems", DeprecationWarning, stacklevel=2)
