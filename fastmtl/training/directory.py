"""The files of a run's directory: whether a run may use it, and what is stored there."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastmtl._files import sync_directory
from fastmtl.training import lock
from fastmtl.training.checkpoint import (
    RunError,
    read_json,
    read_sealed,
    remove_temporaries,
    seal,
    write_json,
)
from fastmtl.training.config import TrainConfig
from fastmtl.training.identity import CHANGEABLE, Identity

CONFIG = "config.json"
MODEL = "model.safetensors"
CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.json"
HISTORY = "history.csv"
LOG = "log.csv"
TENSORBOARD = "tensorboard"
LOSSES = "losses.png"
FIGURES = "figures.png"
WEIGHTS = "weights.png"

STATE = (CONFIG, MODEL, CHECKPOINT, LOG)
RESULTS = (METRICS, HISTORY, LOSSES, FIGURES, WEIGHTS)


def check(path: str | os.PathLike[str], *, resume: bool, overwrite: bool) -> None:
    """Raise RunError if a run may not be written to `path`; touch nothing.

    It must be absent or an empty directory; with `resume` it must hold a run; with `overwrite` what
    a run left there may be replaced. The directory, or the nearest there is above it, must be
    writable.
    """
    path = Path(path)
    if resume and overwrite:
        raise RunError("resume: expected either resume or overwrite, got both")
    if path.exists() and not path.is_dir():
        raise RunError(f"{path}: expected a directory, got a file")
    if resume:
        # A run that was killed before its first checkpoint has a configuration alone.
        needed = [CONFIG, CHECKPOINT] if (path / MODEL).is_file() else [CONFIG]
        for name in needed:
            if not (path / name).is_file():
                raise RunError(f"{path / name}: no such file, so there is no run to resume")
    elif path.is_dir() and any(content(path, STATE + RESULTS)) and not overwrite:
        raise RunError(
            f"{path}: expected a new or empty directory, got one with files in it "
            "(--resume continues the run, --overwrite replaces it; "
            "in Python fit(resume=True), fit(overwrite=True))"
        )
    nearest = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise RunError(f"{path}: cannot be written to ({nearest} is not a writable directory)")


def content(path: Path, names: Iterable[str]) -> Iterator[Path]:
    """What a directory holds besides what a killed writer of files of these names left."""
    temporary = re.compile(rf"\.({'|'.join(map(re.escape, names))})\.\d+\.tmp")
    for each in path.iterdir():
        if each.name != lock.NAME and not temporary.fullmatch(each.name):
            yield each


def clear(path: Path, *, keep_state: bool) -> None:
    """Remove a run's results, its state too unless `keep_state`, and what killed processes left.

    Every other file stays.
    """
    remove_temporaries(path, STATE + RESULTS)
    for name in RESULTS if keep_state else RESULTS + STATE:
        (path / name).unlink(missing_ok=True)
    if not keep_state:
        shutil.rmtree(path / TENSORBOARD, ignore_errors=True)


@dataclass(frozen=True)
class StoredRun:
    """The content of a run's config.json.

    `train` has the defaults for options that did not make the run: those of a model, a balancer or
    arrays that were given and not named are in `record` alone.
    """

    train: TrainConfig
    record: dict[str, Any]
    identity: Identity

    @property
    def model(self) -> str | None:
        """The name of the model's class, None for a model of the user's own."""
        name: str | None = self.record["model"]["name"]
        return name

    @property
    def arguments(self) -> dict[str, Any]:
        """Those that the model's constructor got."""
        return dict(self.record["model"]["arguments"])

    @property
    def data(self) -> dict[str, Any]:
        """What `describe` gave of the data."""
        return dict(self.record["data"])

    @property
    def title(self) -> str:
        """Model and balancer, by their names where they have one."""
        return title(self.record)

    def missing(self) -> list[str]:
        """Which of model, balancer and data cannot be made from the options that are stored."""
        return [kind for kind in ("model", "balancer", "data") if kind not in self.record["train"]]


def title(record: Mapping[str, Any]) -> str:
    """What a configuration trains: model and balancer, by their names where they have one."""
    options = record["train"]
    return ", ".join(options.get(kind, record[kind]["class"]) for kind in ("model", "balancer"))


def write(path: Path, record: Mapping[str, Any], identity: Identity) -> None:
    """Write config.json: what `read` gives."""
    write_json(path / CONFIG, seal({**record, "run": identity.to_dict()}))
    sync_directory(path.absolute().parent)


def read(path: str | os.PathLike[str]) -> StoredRun:
    """What the config.json of the run in a directory says.

    Raises RunError naming the file if it is absent, damaged, or not one that a run wrote.
    """
    path = Path(path) / CONFIG
    record = read_sealed(path)
    try:
        identity = Identity.from_dict(record.pop("run"))
        stored = StoredRun(TrainConfig.from_dict(record["train"]), record, identity)
        parts = [stored.model or "", stored.arguments, stored.title]
        parts += [stored.data[key] for key in ("label_names", "features", "sequences")]
        parts.append(stored.data.get("class_names", {}))
        for part, kind in zip(parts, (str, dict, str, list, dict, list, dict), strict=True):
            if not isinstance(part, kind):
                raise TypeError(f"expected a {kind.__name__}, got {part!r}")
    except (LookupError, TypeError, ValueError) as error:
        raise RunError(f"{path}: not the configuration of a run ({error})") from error
    return stored


def resumed_config(path: str | os.PathLike[str], given: Mapping[str, Any]) -> TrainConfig:
    """The stored configuration with the options `given` to the resumed run.

    These may only repeat what is stored, or change how long and where the run goes on and where its
    data lies (the checkpoint knows the data's content); RunError for anything else.
    """
    stored = read(path).train
    for name, value in given.items():
        if name not in CHANGEABLE and value != getattr(stored, name):
            raise RunError(
                f"{name}: expected {getattr(stored, name)!r} as in the run to resume, got {value!r}"
            )
    if stored.lr_schedule == "cosine" and given.get("epochs", stored.epochs) != stored.epochs:
        raise RunError(
            f"epochs: expected {stored.epochs} as in the run to resume, whose learning rate falls "
            f"to 0 over them (lr_schedule cosine), got {given['epochs']}"
        )
    return dataclasses.replace(stored, **given)


def resumable_by_name(path: str | os.PathLike[str], given: Mapping[str, Any]) -> TrainConfig:
    """`resumed_config` for one who has the options alone.

    Raises RunError for a run of a model, a balancer or data that options do not name.
    """
    if missing := [kind for kind in read(path).missing() if kind not in given.keys() & {"data"}]:
        raise RunError(
            f"{path}: the {' and the '.join(missing)} of this run were given in Python, so there "
            "it must be resumed: Trainer.fit(resume=True)"
        )
    return resumed_config(path, given)


def stored_metrics(path: Path) -> dict[str, Any] | None:
    """What metrics.json holds; None if it is not there, or damaged."""
    try:
        return read_json(path / METRICS)
    except RunError:
        return None
