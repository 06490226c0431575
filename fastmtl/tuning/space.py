"""The values that a search tries for each option."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastmtl._checks import did_you_mean
from fastmtl.training.config import TrainConfig
from fastmtl.training.options import Declared, declared
from fastmtl.training.recipes import MODELS, OF_DATA

# What trials share, so that their figures can be compared: samples, budget, judgement, machine.
FIXED = frozenset(
    {*OF_DATA, "epochs", "seed", "monitor", "threshold", "patience",
     "device", "threads", "log"}
)  # fmt: skip
_TRUTH = {"true": True, "false": False}


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`: integers if both are, drawn from their logarithms with `log`.

    Args:
        low: the least.
        high: the greatest.
        log: whether each factor is as likely, rather than each difference.
        step: the distance of two values, where not all in between are tried.

    Examples:
        >>> Range(1e-4, 1e-2, log=True).holds(1e-3)
        True
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def draw(self, name: str, trial: Any) -> int | float:
        """A value that Optuna's trial suggests."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            step = 1 if self.step is None else int(self.step)
            whole: int = trial.suggest_int(name, self.low, self.high, step=step, log=self.log)
            return whole
        value: float = trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)
        return value

    def holds(self, value: Any) -> bool:
        """Whether it is one of the values."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if self.step is not None:
            steps = (value - self.low) / self.step
            if not math.isclose(steps, round(steps), abs_tol=1e-9):
                return False
        return self.low <= value <= self.high

    def ends(self) -> Sequence[Any]:
        """Values that are allowed if all are."""
        return self.low, self.high


@dataclass(frozen=True)
class Choice:
    """Some values.

    Args:
        values: at least two.

    Examples:
        >>> Choice(("equal", "dmtl")).holds("equal")
        True
    """

    values: tuple[Any, ...]

    def draw(self, name: str, trial: Any) -> Any:
        """A value that Optuna's trial suggests."""
        return trial.suggest_categorical(name, self.values)

    def holds(self, value: Any) -> bool:
        """Whether it is one of the values."""
        return value in self.values

    def ends(self) -> Sequence[Any]:
        """All of them."""
        return self.values


Space = Mapping[str, Range | Choice]


def default_space(model: str, given: Iterable[str] = ()) -> dict[str, Range | Choice]:
    """What is searched where nobody says what: learning rate, regularisation, and width.

    Args:
        model: a name that `TrainConfig.model` takes.
        given: options that are to stay as they are.

    Examples:
        >>> list(default_space("hgfn", given=["lr"]))
        ['weight_decay', 'dropout', 'hidden_size', 'head_size']
    """
    space: dict[str, Range | Choice] = {
        "lr": Range(1e-4, 1e-2, log=True),
        "weight_decay": Range(1e-3, 1.0, log=True),
        "dropout": Range(0.0, 0.7),
        "hidden_size": Choice((64, 128, 256)),
    }
    reads = MODELS[model].reads
    if "head_size" in reads:
        space["head_size"] = Choice((32, 64, 128))
    elif "attention_size" in reads:
        space["attention_size"] = Choice((32, 64, 128))
    return {name: values for name, values in space.items() if name not in set(given)}


def parse_space(texts: Sequence[str]) -> dict[str, Range | Choice]:
    """The space of NAME=LOW:HIGH, NAME=LOW:HIGH:log, NAME=LOW:HIGH:STEP and NAME=A,B,... .

    Args:
        texts: what was typed.

    Raises:
        ValueError: for an option that does not exist or cannot be searched, and for values that it
            cannot have.

    Examples:
        >>> parse_space(["lr=1e-4:1e-2:log", "balancer=equal,dmtl"])["lr"]
        Range(low=0.0001, high=0.01, log=True, step=None)
    """
    space: dict[str, Range | Choice] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name or not values.strip():
            raise ValueError(f"search: expected NAME=LOW:HIGH or NAME=A,B,..., got {text!r}")
        if name in space:
            raise ValueError(f"search: expected each option once, got {name} twice")
        option = _searchable(name)
        space[name] = _range(option, values) if ":" in values else _choice(option, values)
    return space


def check_space(space: Space) -> None:
    """Raise ValueError naming the first option that cannot be searched, or not for these values."""
    if not space:
        raise ValueError("search: expected at least one option to search, got none")
    for name, values in space.items():
        option = _searchable(name)
        for value in values.ends():
            try:
                option.check(value)
            except ValueError as error:
                raise ValueError(f"search: {error}") from None


def _searchable(name: str) -> Declared:
    options = declared(TrainConfig)
    known = [each for each in options if each not in FIXED]
    if name in FIXED:
        raise ValueError(
            f"search: expected an option that trials can differ in, got {name}, which they share"
        )
    if name not in options:
        raise ValueError(
            f"search: expected options of fastmtl train, got {name!r}{did_you_mean(name, known)}"
        )
    return options[name]


def _range(option: Declared, text: str) -> Range:
    name = option.name
    if option.kind not in (int, float):
        raise ValueError(
            f"search: {name}: expected values with commas between them, got the range {text!r}"
        )
    low, high, *rest = text.split(":")
    if len(rest) > 1:
        raise ValueError(
            f"search: {name}: expected LOW:HIGH, LOW:HIGH:log or LOW:HIGH:STEP, got {text!r}"
        )
    log = bool(rest) and rest[0].strip() == "log"
    found = Range(
        _value(option, low),
        _value(option, high),
        log,
        _value(option, rest[0]) if rest and not log else None,
    )
    if not found.low < found.high:
        raise ValueError(f"search: {name}: expected LOW < HIGH, got {text!r}")
    if log and found.low <= 0:
        raise ValueError(f"search: {name}: expected LOW > 0 for a logarithmic range, got {text!r}")
    if found.step is not None and not 0 < found.step <= found.high - found.low:
        raise ValueError(f"search: {name}: expected 0 < STEP <= HIGH - LOW, got {text!r}")
    check_space({name: found})
    return found


def _choice(option: Declared, text: str) -> Choice:
    values = tuple(_value(option, each) for each in text.split(","))
    if len(set(values)) < max(2, len(values)):
        raise ValueError(
            f"search: {option.name}: expected at least two different values, got {text!r}"
        )
    found = Choice(values)
    check_space({option.name: found})
    return found


def _value(option: Declared, text: str) -> Any:
    """The value of an option that a text stands for."""
    text = text.strip()
    if option.optional and text.lower() == "none":
        return None
    if option.kind is bool:
        return _TRUTH.get(text.lower(), text)
    if option.kind in (int, float):
        try:
            return option.kind(text)
        except ValueError:
            kind = "an integer" if option.kind is int else "a number"
            raise ValueError(f"search: {option.name}: expected {kind}, got {text!r}") from None
    return text
