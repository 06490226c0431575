"""The program: its commands, and what it does without one."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

import fastmtl
from fastmtl.cli.errors import BAD_INPUT, STOPPED, exit_with
from fastmtl.cli.reproduce import reproduce
from fastmtl.cli.show import info, systems
from fastmtl.cli.train import train
from fastmtl.cli.trained import evaluate, predict

# Typer brings its own click or uses an installed one; both derive BadParameter from this.
_UsageError: Any = typer.BadParameter.__mro__[1]
app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (train, evaluate, predict, reproduce, systems, info):
    app.command()(_command)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Train multi-task, multi-label and multimodal networks."""
    if version:
        typer.echo(f"fastmtl {fastmtl.__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command line and exit the process."""
    try:
        code = app(prog_name="fastmtl", standalone_mode=False)
    except _UsageError as error:
        exit_with(error.format_message(), BAD_INPUT)
    except (typer.Abort, KeyboardInterrupt):
        code = STOPPED
    if code == STOPPED:
        exit_with("stopped", STOPPED)
    sys.exit(code or 0)
