"""What a reproduction consists of: systems, data, options, and the runs that these make."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fastmtl.data
import fastmtl.models
from fastmtl._checks import did_you_mean
from fastmtl.data import MultiTaskData
from fastmtl.reproduce.systems import TABLES, PaperTable, System
from fastmtl.training import RunError, TrainConfig, load_data, preset
from fastmtl.training.checkpoint import read_json
from fastmtl.training.directory import content
from fastmtl.training.options import check_choice, check_count
from fastmtl.training.recipes import ONLY_FOR

FILE = "reproduce.json"
RESULT = "result.json"
# What makes a run, and may not differ between the runs of one directory.
_FIXED = ("table", "data", "test", "xml", "modalities", "folds", "options")
# These define a system, a run, or the data: not the user's to set for all rows at once.
_RESERVED = ("model", "balancer", "loss", "gamma", "imbalance_penalty", "interaction", "seed",
             "data", "test", "xml", "modalities", "device", "threads")  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One training of one system: with a seed, or on a fold of a cross-validation."""

    system: str
    number: int
    kind: str

    @property
    def name(self) -> str:
        """Where the run lies below the directory of the reproduction."""
        return f"{self.system}/{self.kind}-{self.number}"


@dataclass(frozen=True)
class Plan:
    """A table of a paper, to be filled from data.

    Args:
        table: "mtmlan", "hgfn" or "mtdnn".
        data: a file or `synthetic:...`; this, `test`, `xml` and `modalities` are as for
            `fastmtl.data.load`.
        test: a second file, the test split.
        xml: the labels of an .arff file.
        modalities: those to keep, or columns to cut.
        seeds: runs of each row, seeds 0, 1, ...; a file without a split is split by the seed.
        systems: names of rows; by default those of the paper.
        folds: for "mtdnn" the number of folds of a cross-validation over all samples, which then
            takes the place of seeds; 1 for the file's split.
        options: changes of `TrainConfig`, or of the estimators' parameters, for all rows that have
            them.
        device: of each run.
        threads: of each run.

    Raises:
        ValueError: naming what does not fit.

    Examples:
        >>> plan = Plan("mtmlan", data="synthetic:disaster", seeds=2, systems=["ewmtc"])
        >>> [run.name for run in plan.runs()]
        ['ewmtc/seed-0', 'ewmtc/seed-1']
    """

    table: str
    data: str
    test: str | None = None
    xml: str | None = None
    modalities: str | None = None
    seeds: int = 5
    systems: Sequence[str] = ()
    folds: int = 10
    options: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        check_choice("table", self.table, TABLES)
        check_count("seeds", self.seeds)
        check_count("folds", self.folds)
        known: set[str] = set()
        for system in self.chosen:
            known |= option_names(system)
            if system.estimator is None:
                self.config(system, 0)
        if unknown := [name for name in self.options if name not in known]:
            expected, near = ", ".join(sorted(known)), did_you_mean(unknown[0], known)
            raise ValueError(f"option: expected some of {expected}, got {unknown[0]!r}{near}")

    @property
    def paper(self) -> PaperTable:
        """The table to fill."""
        return TABLES[self.table]

    @property
    def chosen(self) -> list[System]:
        """The rows, in the order of the paper."""
        wanted = [self.paper.system(name).name for name in self.systems or self.paper.default]
        return [system for system in self.paper.systems if system.name in wanted]

    @property
    def cross_validates(self) -> bool:
        """Whether runs are folds and not seeds."""
        return self.table == "mtdnn" and self.folds > 1

    def runs(self) -> list[Run]:
        """Every run: the first seed or fold of each row, then the second, ..."""
        kind, count = ("fold", self.folds) if self.cross_validates else ("seed", self.seeds)
        return [Run(system.name, n, kind) for n in range(count) for system in self.chosen]

    def own_options(self, system: System) -> dict[str, Any]:
        """Those of `options` that mean something to a system."""
        names = option_names(system)
        return {name: value for name, value in self.options.items() if name in names}

    def config(self, system: System, seed: int) -> TrainConfig:
        """The training run of a system with a seed: the preset "paper", and what changes it."""
        return TrainConfig(
            **{
                **preset("paper"),
                **self.own_options(system),
                **system.options,
                "data": self.data,
                "test": self.test,
                "xml": self.xml,
                "modalities": self.modalities,
                "seed": seed,
                "device": self.device,
                "threads": self.threads,
            }
        )

    def estimator(self, system: System, seed: int) -> Any:
        """The estimator of a system with a seed."""
        estimator = getattr(fastmtl.models, str(system.estimator))()
        estimator.set_params(**self.own_options(system))
        if "random_state" in estimator.get_params():
            estimator.set_params(random_state=seed)
        if self.device != "auto":
            estimator.set_params(device=self.device)
        return estimator

    def load(self) -> MultiTaskData:
        """The data of the first run. Raises DataError if it cannot be used."""
        system = self.chosen[0]
        if system.estimator is None:
            return load_data(self.config(system, 0), self.data, test=self.test)
        return fastmtl.data.load(
            self.data, test=self.test, xml=self.xml, modalities=self.modalities
        )

    def fixed(self) -> dict[str, Any]:
        """What every run in a directory shares, as JSON knows it."""
        values = {name: getattr(self, name) for name in _FIXED}
        return dict(json.loads(json.dumps({**values, "options": dict(self.options)})))

    def check_directory(self, out: Path) -> None:
        """Raise RunError unless `out` is new, empty, or holds runs of the same kind."""
        if out.exists() and not out.is_dir():
            raise RunError(f"{out}: expected a directory, got a file")
        if not out.is_dir() or not any(content(out, [FILE])):
            return
        if not (out / FILE).is_file():
            raise RunError(f"{out}: expected a new or empty directory, or one with a {FILE}")
        stored = read_json(out / FILE)
        for name, value in self.fixed().items():
            if stored.get(name) != value:
                raise RunError(
                    f"{name}: expected {stored.get(name)!r} as in {out}, got {value!r} "
                    "(other runs need another directory)"
                )


def parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """Options from NAME=VALUE, the value in JSON or else a string.

    Args:
        texts: what was typed.

    Raises:
        ValueError: for a text without a name or a value.

    Examples:
        >>> parse_options(["epochs=5", "monitor=map", "hidden_sizes=[64, 32]"])
        {'epochs': 5, 'monitor': 'map', 'hidden_sizes': [64, 32]}
    """
    options: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ValueError(f"option: expected NAME=VALUE, got {text!r}")
        try:
            options[name.replace("-", "_")] = json.loads(value)
        except json.JSONDecodeError:
            options[name.replace("-", "_")] = value
    return options


def option_names(system: System) -> set[str]:
    """The options that mean something to a system and do not define it."""
    if system.estimator is not None:
        parameters = getattr(fastmtl.models, system.estimator)().get_params()
        return set(parameters) - {"random_state", "device"}
    fields = {option.name for option in dataclasses.fields(TrainConfig)} - set(_RESERVED)
    return {name for name in fields if _has_effect(name, system)}


def _has_effect(option: str, system: System) -> bool:
    if option not in ONLY_FOR:
        return True
    kind, users = ONLY_FOR[option]
    return system.options.get(kind, getattr(TrainConfig, kind)) in users
