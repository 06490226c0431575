"""The command line, as its own tests call it."""

from __future__ import annotations

from tests.cli.conftest import call

__all__ = ["call"]
