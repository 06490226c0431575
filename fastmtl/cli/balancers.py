"""`fastmtl balancers`: the methods that weigh tasks, what they need and what they cost."""

from __future__ import annotations

import sys
from typing import Any

from rich import box
from rich.table import Table

from fastmtl.cli.errors import TellingConsole
from fastmtl.training.recipes import BALANCERS


def balancers() -> None:
    """List the methods of --balancer: what each needs, and what it adds to a step."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, expand=True)
    table.add_column("--balancer", no_wrap=True)
    table.add_column("in fastmtl.balancing", ratio=1, overflow="fold")
    table.add_column("needs", width=13)
    table.add_column("adds to a step", width=14)
    for name, recipe in BALANCERS.items():
        method: Any = recipe.kind
        summary = (sys.modules[method.__module__].__doc__ or "").rstrip(".")
        told = f"{method.__name__}: {summary[:1].lower()}{summary[1:]}"
        table.add_row(name, told, method.needs, method.adds)
    console = TellingConsole()
    console.print(table, "")
    console.print(
        "Nothing is a few operations on T numbers. Norms and Gramian come from the one backward "
        "pass, at one layer.",
        highlight=False,
    )
