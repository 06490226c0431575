"""What a search consists of: where it starts, what it tries, and how trials are judged."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastmtl.training import RunError, TrainConfig
from fastmtl.training.checkpoint import read_json
from fastmtl.training.directory import content
from fastmtl.training.effect import check_effect, why_idle, without_idle
from fastmtl.training.identity import CHANGEABLE
from fastmtl.training.recipes import LOSSES
from fastmtl.training.report import FIGURES, OF_CLASSES
from fastmtl.tuning.space import Choice, Range, check_space

FILE = "tune.json"
# What decides which other options have an effect: these are drawn first.
_DECIDING = ("model", "balancer", "loss", "lr_schedule")
# Where these differ, losses are of different kinds.
_OF_LOSS = {"loss"}.union(*(recipe.reads for recipe in LOSSES.values()))


@dataclass(frozen=True)
class Search:
    """A search for options, in the neighbourhood of those that it starts with.

    A trial is a run of `base` with values drawn from `space`, those of options that have an effect
    on the trial's model, balancer and loss. It is judged by its best epoch by `base.monitor` on the
    validation split; the test split is left out of it. The first trial is `base` itself, as far as
    the space holds its values.

    Args:
        base: the options of every trial but for those that are searched.
        space: values by the names of options.
        given: options of `base` that must have an effect on some trial.

    Raises:
        ValueError: for an option that cannot be searched or has no effect, and for the loss as
            judge between losses of different kinds.

    Examples:
        >>> from fastmtl.tuning import Choice, Range
        >>> search = Search(TrainConfig(), {"lr": Range(1e-4, 1e-2, log=True)})
        >>> search.monitor
        'mAP'
    """

    base: TrainConfig
    space: dict[str, Range | Choice]
    given: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_space(self.space)
        kinds = list(self.kinds())
        for name in (*self.given, *self.space):
            if all(why_idle(config, name) for config in kinds):
                check_effect(kinds[0], [name])
        if self.base.monitor == "loss" and (found := sorted(_OF_LOSS.intersection(self.space))):
            raise ValueError(
                f"monitor: expected map, micro_f1 or macro_f1 where {found[0]} is searched, "
                "because losses of different kinds cannot be compared, got loss"
            )

    @property
    def monitor(self) -> str:
        """What trials are judged by, in words."""
        return {**FIGURES, **OF_CLASSES}.get(self.base.monitor, "validation loss")

    def shown(self, score: float) -> float:
        """The figure whose score this is, the higher the better."""
        return -score if self.base.monitor == "loss" else score

    def kinds(self) -> Iterator[TrainConfig]:
        """`base` with every combination of models, balancers, losses and schedules."""
        names = [name for name in _DECIDING if name in self.space]
        for values in itertools.product(*(self.space[name].ends() for name in names)):
            yield dataclasses.replace(self.base, **dict(zip(names, values, strict=True)))

    def start(self) -> dict[str, Any]:
        """The values of `base` that the space holds."""
        values = {name: getattr(self.base, name) for name in self.space}
        return {name: value for name, value in values.items() if self.space[name].holds(value)}

    def draw(self, trial: Any) -> TrainConfig:
        """The options of a trial, whose values Optuna's `trial` suggests."""
        first = [name for name in _DECIDING if name in self.space]
        config = self.base
        for name in [*first, *(name for name in self.space if name not in first)]:
            if name in first or why_idle(config, name) is None:
                drawn: Any = self.space[name].draw(name, trial)
                config = dataclasses.replace(config, **{name: drawn})
        return without_idle(config)

    def with_values(self, drawn: Mapping[str, Any]) -> TrainConfig:
        """The options of the trial for which these values were drawn."""
        return without_idle(dataclasses.replace(self.base, **drawn))

    def fixed(self) -> dict[str, Any]:
        """What every trial in a directory shares, as JSON knows it."""
        options = {k: v for k, v in self.base.to_dict().items() if k not in CHANGEABLE}
        options |= {"data": self.base.data, "test": self.base.test, "epochs": self.base.epochs}
        space = {name: dataclasses.asdict(values) for name, values in self.space.items()}
        return dict(json.loads(json.dumps({"options": options, "space": space})))

    def check_directory(self, out: Path) -> None:
        """Raise RunError unless `out` is new, empty, or holds trials of this search."""
        if out.exists() and not out.is_dir():
            raise RunError(f"{out}: expected a directory, got a file")
        if not out.is_dir() or not any(content(out, [FILE])):
            return
        if not (out / FILE).is_file():
            raise RunError(f"{out}: expected a new or empty directory, or one with a {FILE}")
        stored, own = read_json(out / FILE), self.fixed()
        for part in ("options", "space"):
            before, now = stored.get(part, {}), own[part]
            for name in sorted({*before, *now}):
                if before.get(name) != now.get(name):
                    raise RunError(
                        f"{name if part == 'options' else f'search: {name}'}: expected "
                        f"{before.get(name)!r} as in {out}, got {now.get(name)!r} "
                        "(another search needs another directory)"
                    )
