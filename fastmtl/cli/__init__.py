"""The command line: train, evaluate, predict, export, reproduce, systems, balancers, info."""

from __future__ import annotations

from fastmtl.cli.app import main

__all__ = ["main"]
