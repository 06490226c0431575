"""Runs that write an empty file for each of their figures."""

from __future__ import annotations

from typing import Any
from unittest import mock

FIGURES = ("plot_losses", "plot_figures", "plot_weights")


def undrawn() -> Any:
    """A context, or a decorator, in which runs draw nothing: for a small one it takes ten times as
    long as the training. Tests marked `draws` do without it."""
    return mock.patch.multiple("fastmtl.training.results", **dict.fromkeys(FIGURES, _nothing))


def _nothing(*arguments: object) -> bytes:
    return b""
