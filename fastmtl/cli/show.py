"""`fastmtl systems` and `fastmtl info`: what there is."""

from __future__ import annotations

from rich.console import Console

from fastmtl import info as machine
from fastmtl.reproduce.tables import systems_table


def systems() -> None:
    """List every system of the papers: name, row, and what it is made of."""
    Console().print(systems_table())


def info() -> None:
    """Show versions, devices, and the backend that serves each op."""
    Console().print(machine.render())
