"""The program: its commands, and what it does without one.

A command's module, and PyTorch with it, is imported when the command is called: help, the version
and completion of a command's name need neither.
"""

from __future__ import annotations

import ast
import inspect
import os
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from typer.core import TyperGroup
from typer.models import ArgumentInfo

import fastmtl
from fastmtl.cli.errors import (
    BAD_INPUT,
    FAILED,
    STOPPED,
    BadInput,
    exit_elsewhere,
    exit_with,
    is_elsewhere,
    is_out_of_memory,
)

# Every command, and the module of this package that has the function of that name.
COMMANDS = {
    "extract": "extract",
    "train": "train",
    "evaluate": "trained",
    "predict": "trained",
    "tune": "tune",
    "report": "report",
    "export": "export",
    "search": "search",
    "convert": "convert",
    "reproduce": "reproduce",
    "systems": "show",
    "balancers": "balancers",
    "info": "show",
    "doctor": "show",
    "demo": "demo",
}
# Tens of microseconds: longer than from one operation of a step to the next.
SPINS = "2000"
# Typer brings its own click or uses an installed one; both derive BadParameter from this.
_UsageError: Any = typer.BadParameter.__mro__[1]


class _Commands(TyperGroup):
    """Commands by name and summary; the one that is called is replaced by the whole of it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, _whole(name) if name else command, rest


app = typer.Typer(
    cls=_Commands,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def function_of(name: str) -> Callable[..., None]:
    """The function of a command."""
    function: Callable[..., None] = getattr(_module(COMMANDS[name]), name)
    return function


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
    _wait_briefly()
    try:
        code = app(prog_name="fastmtl", standalone_mode=False)
    except BadInput as error:
        exit_with(_as_option(str(error)), BAD_INPUT)
    except _UsageError as error:
        exit_with(error.format_message(), BAD_INPUT)
    except (typer.Abort, KeyboardInterrupt):
        code = STOPPED
    except (MemoryError, RuntimeError) as error:
        if is_elsewhere(error):
            exit_elsewhere(error)
        if not is_out_of_memory(error):
            raise
        exit_with(f"out of memory ({error})" if str(error) else "out of memory", FAILED)
    if code == STOPPED:
        exit_with("stopped", STOPPED)
    sys.exit(code or 0)


def _wait_briefly() -> None:
    """Have the threads of GCC's OpenMP, which PyTorch for Linux brings, sleep soon when they wait.

    By default they spin for milliseconds: where other programs want the cores, that made epochs
    five times as long. It is read when PyTorch is loaded, which no command has done yet.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def _module(name: str) -> Any:
    return import_module(f"fastmtl.cli.{name}")


def _whole(name: str) -> Any:
    """The command with its options."""
    alone = typer.Typer(add_completion=False)
    alone.command(name)(function_of(name))
    return typer.main.get_command(alone)


@cache
def _functions(module: str) -> dict[str, ast.FunctionDef]:
    source = (Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8")
    return {each.name: each for each in ast.parse(source).body if isinstance(each, ast.FunctionDef)}


def _summary(name: str) -> str:
    """The first line of a command's docstring, read without importing its module."""
    docstring = ast.get_docstring(_functions(COMMANDS[name])[name])
    return (docstring or "").partition("\n")[0]


def _as_option(message: str) -> str:
    """Name an option as it is typed where a message begins with its name in Python."""
    name, colon, rest = message.partition(": ")
    if colon and any(name in _option_names(function_of(command)) for command in COMMANDS):
        return f"--{name.replace('_', '-')}: {rest}"
    return message


def _option_names(command: Callable[..., None]) -> set[str]:
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    return {each.name for each in parameters if not _is_argument(each)}


def _is_argument(parameter: inspect.Parameter) -> bool:
    """Whether it is typed by its place and not by its name."""
    return any(isinstance(each, ArgumentInfo) for each in get_args(parameter.annotation))


for _name in COMMANDS:
    app.command(_name, help=_summary(_name))(lambda: None)
