"""The command line: one file per group of commands, put together in `app`."""

from __future__ import annotations

from fastmtl.cli.app import main

__all__ = ["main"]
