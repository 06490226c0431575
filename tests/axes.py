"""Cases that differ from one base in one axis at a time, for tests that would multiply axes."""

from __future__ import annotations

from typing import Any

import pytest
import torch


def one_at_a_time(
    base: dict[str, Any], axes: dict[str, list[Any]], *pairs: dict[str, Any]
) -> list[Any]:
    """Parameters for pytest: the base case, the base with every value of every axis, and the
    base with each of `pairs`, the crossings of axes that share code.

    The base should be the case that takes the most code, so that every other value of an axis is
    tested where it can go wrong: sizes with tails, say, so that every dtype meets them.
    """
    changes = [{axis: value} for axis, values in axes.items() for value in values]
    return [pytest.param(base | case, id=_name(case)) for case in ({}, *changes, *pairs)]


def _name(case: dict[str, Any]) -> str:
    return "-".join(f"{axis}={_short(value)}" for axis, value in case.items()) or "base"


def _short(value: Any) -> str:
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, tuple | list):
        return "x".join(map(_short, value)) or "none"
    return value.__name__ if callable(value) else str(value)
