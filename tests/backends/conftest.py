"""Uninitialised memory cannot pass unnoticed in the tests of the backends."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _poison(poison: None) -> None:
    """For every test here."""
