"""Options declared once, in the field of a dataclass: checks and descriptions follow from that."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

from fastmtl._checks import did_you_mean

_T = TypeVar("_T")
_KEY = "option"


@dataclass(frozen=True)
class Option:
    """What is declared of an option besides its name, type and default.

    Args:
        help: what it does, in a line.
        panel: the heading that it stands under.
        choices: the values of a string, where they are limited.
        minimum: the least number.
        maximum: the greatest number.
        above: what a number must be greater than.
        below: what a number must be less than.
        unset: what None stands for, in words.
    """

    help: str
    panel: str = ""
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    unset: str = ""

    def check(self, name: str, value: object, kind: type) -> None:
        """Raise ValueError unless `value` is of `kind` and within the bounds."""
        if self.choices:
            valid, expected = value in self.choices, f"one of {', '.join(self.choices)}"
        elif kind is bool:
            valid, expected = isinstance(value, bool), "True or False"
        elif kind is str:
            valid, expected = isinstance(value, str), "text"
        elif kind in (int, float):
            valid, expected = self._holds(value, kind), self._expected(kind)
        else:
            return
        if not valid:
            near = did_you_mean(value, self.choices)
            raise ValueError(f"{name}: expected {expected}, got {value!r}{near}")

    def _holds(self, value: Any, kind: type) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if kind is int and not isinstance(value, int):
            return False
        return (
            (isinstance(value, int) or math.isfinite(value))
            and (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def _expected(self, kind: type) -> str:
        number = "an integer" if kind is int else "a finite number"
        most = "" if self.maximum is None else f" and <= {self.maximum}"
        if self.above is not None:
            return f"{number} > {self.above}{most}"
        if self.below is not None:
            return f"{number} in [{self.minimum}, {self.below})"
        return f"{number} >= {self.minimum}{most}"


@dataclass(frozen=True)
class Declared:
    """An option with its name, the type of its values (without None), and its default."""

    name: str
    kind: type
    optional: bool
    default: Any
    option: Option

    def check(self, value: object) -> None:
        """Raise ValueError naming the option unless it may have `value`."""
        if value is not None or not self.optional:
            self.option.check(self.name, value, self.kind)


def option(default: _T, help: str, panel: str = "", **facts: Any) -> _T:
    """A dataclass field with a default, described by an `Option` of these facts."""
    return field(default=default, metadata={_KEY: Option(help, panel, **facts)})


@cache
def declared(cls: Any) -> dict[str, Declared]:
    """The options that a dataclass declares, by name and in order."""
    return {each.name: each for each in _declared(cls)}


def check_options(instance: Any) -> None:
    """Raise ValueError naming the first option of a dataclass instance that is out of range."""
    for name, each in declared(instance.__class__).items():
        each.check(getattr(instance, name))


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise ValueError unless `value` is one of `choices`.

    Examples:
        >>> check_choice("split", "dev", ["train", "val"])
        Traceback (most recent call last):
            ...
        ValueError: split: expected one of train, val, got 'dev'
    """
    Option("", choices=tuple(choices)).check(name, value, str)


def check_count(name: str, value: object) -> None:
    """Raise ValueError unless `value` is an integer of at least 1.

    Examples:
        >>> check_count("jobs", 0)
        Traceback (most recent call last):
            ...
        ValueError: jobs: expected an integer >= 1, got 0
    """
    Option("", minimum=1).check(name, value, int)


def _declared(cls: Any) -> Iterator[Declared]:
    types = get_type_hints(cls)
    for each in dataclasses.fields(cls):
        if _KEY in each.metadata:
            kinds = [kind for kind in get_args(types[each.name]) if kind is not NoneType]
            kind, optional = (kinds[0], True) if kinds else (types[each.name], False)
            yield Declared(each.name, kind, optional, each.default, each.metadata[_KEY])
