"""`fastmtl systems`, `fastmtl info` and `fastmtl doctor`: what there is."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from fastmtl import doctor as examination
from fastmtl import info as machine
from fastmtl.cli import options
from fastmtl.cli.errors import FAILED, TellingConsole, show
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


def doctor(
    as_json: Annotated[bool, options.flag("--json", "Print JSON, not a table.")] = False,
) -> None:
    """Look for what is missing or slow here, and say what to do; exit 1 if something is wrong."""
    findings = examination.examine()
    if as_json:
        show(json.dumps(examination.as_dict(findings), indent=2))
    else:
        TellingConsole().print(examination.render(findings), highlight=False)
    if not examination.healthy(findings):
        raise typer.Exit(FAILED)
