"""Names and signatures of the last release, which work for one more with a DeprecationWarning."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Collection
from typing import Any, TypeVar, cast

import torch

Method = TypeVar("Method", bound=Callable[..., Any])


def deprecated(message: str) -> None:
    """Warn at the line that called the function that calls this one; not while it is compiled,
    which a warning would break off."""
    if not torch.compiler.is_compiling():
        warnings.warn(message, DeprecationWarning, stacklevel=3)


def takes_old_arguments(
    *positional: str, dropped: Collection[str] = (), **renamed: str
) -> Callable[[Method], Method]:
    """Let a method be called as before its signature changed, with a warning.

    Args:
        positional: what it once took by position, after the arguments that it still takes so.
        dropped: arguments that it has for old calls alone.
        renamed: the new names of arguments by their old ones.
    """

    def decorate(method: Method) -> Method:
        parameters = list(inspect.signature(method).parameters.values())
        places = sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)
        shown = [
            p.replace(annotation=p.empty) for p in parameters[1:] if p.name not in dropped
        ]  # without self
        today = inspect.Signature(shown)
        outdated = {*renamed, *dropped}

        @functools.wraps(method)
        def call(*args: Any, **options: Any) -> Any:
            moved = dict(zip(positional, args[places:], strict=False))
            old = [*moved, *(option for option in options if option in outdated)]
            if not old or len(args) > places + len(positional):
                return method(*args, **options)
            name = type(args[0]).__name__
            if method.__name__ != "__init__":
                name += f".{method.__name__}"
            deprecated(f"{name}: {', '.join(old)} given as in an older version; use {name}{today}")
            taken: dict[str, Any] = {}
            for option, value in (*moved.items(), *options.items()):
                option = renamed.get(option, option)
                if option in taken:
                    raise TypeError(f"{option}: expected once, got it twice")
                taken[option] = value
            return method(*args[:places], **taken)

        return cast(Method, call)

    return decorate
