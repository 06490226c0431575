"""The names of the places in a model at which a balancer can measure the tasks' gradients."""

from __future__ import annotations

from typing import Any, Literal, get_args

from fastmtl._checks import need_choice

BalanceAt = Literal["shared", "first", "last"]
BALANCE_AT: tuple[BalanceAt, ...] = get_args(BalanceAt)


def need_balance_at(value: Any) -> None:
    """Raise unless `value` is one of these names."""
    need_choice("balance_at", value, BALANCE_AT)
