"""`fastmtl systems` and `fastmtl info`: what there is."""

from __future__ import annotations

from fastmtl import info as machine
from fastmtl.cli.errors import TellingConsole
from fastmtl.reproduce.tables import systems_tables


def systems() -> None:
    """List every system of the papers: name, row, and what it is made of."""
    console = TellingConsole()
    for table in systems_tables():
        console.print(table, "")
    console.print("* trained by `fastmtl reproduce` only where --systems names it", highlight=False)


def info() -> None:
    """Show versions, devices, and the backend that serves each op."""
    TellingConsole().print(machine.render())
