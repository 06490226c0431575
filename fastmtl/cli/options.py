"""Options that several commands have, and those of `train`: both as `TrainConfig` declares them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

from fastmtl.training import TrainConfig
from fastmtl.training.config import option_help
from fastmtl.training.options import Declared, declared


def _described(name: str) -> Any:
    """The option of a command that has the meaning of one of `train`."""
    unset = declared(TrainConfig)[name].option.unset
    return typer.Option(help=option_help(name), show_default=unset or True)


def flag(name: str, help: str, panel: str | None = None) -> Any:
    """An option that is there or not; the help would show a value otherwise."""
    return typer.Option(name, help=help, rich_help_panel=panel, metavar="")


Data = Annotated[str, typer.Option(help="The data: what train's --data takes.")]
Test = Annotated[str | None, _described("test")]
Xml = Annotated[str | None, _described("xml")]
Memory = Annotated[str, _described("memory")]
Device = Annotated[str, _described("device")]
Threads = Annotated[int | None, _described("threads")]


def with_training_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command that takes the options of `TrainConfig` as keywords, as typer is to see it.

    Each is None unless it was given: `TrainConfig` knows the defaults. They stand before the
    command's own optional ones.
    """
    signature = inspect.signature(command, eval_str=True)
    own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    required = [each for each in own if each.default is each.empty]
    optional = [each for each in own if each.default is not each.empty]
    options = [_parameter(each) for each in declared(TrainConfig).values()]
    shown: Any = command
    shown.__signature__ = signature.replace(parameters=[*required, *options, *optional])
    return command


def with_absolute_paths(given: dict[str, Any]) -> dict[str, Any]:
    """The same options, with files that are found from any directory."""
    named = {k: str(given[k]) for k in ("data", "test", "xml") if k in given}
    files = {k: value for k, value in named.items() if not value.startswith("synthetic:")}
    return {**given, **{name: os.path.abspath(value) for name, value in files.items()}}


def completion(choices: Iterable[str]) -> Callable[[str], list[str]] | None:
    """What a shell completes a value to; None, which is files, where there are no choices."""
    names = list(choices)

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete if names else None


def _parameter(each: Declared) -> inspect.Parameter:
    flag = each.name.replace("_", "-")
    negated, flags, default = f"no-{flag}", [], each.option.unset
    if each.kind is bool:
        flags, default = [f"--{flag}/--{negated}"], flag if each.default else negated
    elif each.default is not None:
        default = str(each.default)
    option: Any = typer.Option(
        *flags,
        help=option_help(each.name),
        show_default=default or False,
        metavar="" if each.kind is bool else None,
        rich_help_panel=each.option.panel,
        autocompletion=completion(each.option.choices),
    )
    return inspect.Parameter(
        each.name,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=None,
        annotation=Annotated[each.kind | None, option],
    )
