"""The program: its commands, and what it does without one."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Annotated, Any, get_args

import typer
from typer.models import ArgumentInfo

import fastmtl
from fastmtl.cli.balancers import balancers
from fastmtl.cli.errors import BAD_INPUT, FAILED, STOPPED, BadInput, exit_with, is_out_of_memory
from fastmtl.cli.export import export
from fastmtl.cli.reproduce import reproduce
from fastmtl.cli.show import doctor, info, systems
from fastmtl.cli.train import train
from fastmtl.cli.trained import evaluate, predict

# Typer brings its own click or uses an installed one; both derive BadParameter from this.
_UsageError: Any = typer.BadParameter.__mro__[1]
app = typer.Typer(
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (train, evaluate, predict, export, reproduce, systems, balancers, info, doctor)
for _command in COMMANDS:
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
    except BadInput as error:
        exit_with(_as_option(str(error)), BAD_INPUT)
    except _UsageError as error:
        exit_with(error.format_message(), BAD_INPUT)
    except (typer.Abort, KeyboardInterrupt):
        code = STOPPED
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        exit_with(f"out of memory ({error})" if str(error) else "out of memory", FAILED)
    if code == STOPPED:
        exit_with("stopped", STOPPED)
    sys.exit(code or 0)


def _as_option(message: str) -> str:
    """Name an option as it is typed where a message begins with its name in Python."""
    name, colon, rest = message.partition(": ")
    if colon and any(name in _option_names(command) for command in COMMANDS):
        return f"--{name.replace('_', '-')}: {rest}"
    return message


def _option_names(command: Callable[..., None]) -> set[str]:
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    return {each.name for each in parameters if not _is_argument(each)}


def _is_argument(parameter: inspect.Parameter) -> bool:
    """Whether it is typed by its place and not by its name."""
    return any(isinstance(each, ArgumentInfo) for each in get_args(parameter.annotation))
