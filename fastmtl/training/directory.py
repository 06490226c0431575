"""The files of a run's directory: whether a run may use it, and what is stored there."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastmtl.training.checkpoint import RunError, read_json
from fastmtl.training.config import TrainConfig

CONFIG = "config.json"
MODEL = "model.safetensors"
CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.json"
HISTORY = "history.csv"
LOSSES = "losses.png"
WEIGHTS = "weights.png"

STATE = (CONFIG, MODEL, CHECKPOINT)
RESULTS = (METRICS, HISTORY, LOSSES, WEIGHTS)
CHANGEABLE = ("epochs", "device", "threads", "data", "test", "xml")


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
        for name in (CONFIG, CHECKPOINT):
            if not (path / name).is_file():
                raise RunError(f"{path / name}: no such file, so there is no run to resume")
    elif path.is_dir() and any(path.iterdir()) and not overwrite:
        raise RunError(
            f"{path}: expected a new or empty directory, got one with files in it "
            "(--resume continues the run, --overwrite replaces it)"
        )
    nearest = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise RunError(f"{path}: cannot be written to ({nearest} is not a writable directory)")


def clear(path: Path, *, keep_state: bool) -> None:
    """Remove a run's results, and its state too unless `keep_state`; leave every other file."""
    for name in RESULTS if keep_state else RESULTS + STATE:
        (path / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class StoredRun:
    """The content of a run's config.json."""

    train: TrainConfig
    model: str | None  # None for a model of the user's own
    arguments: dict[str, Any]
    data: dict[str, Any]


def read(path: str | os.PathLike[str]) -> StoredRun:
    """What the config.json of the run in a directory says.

    Raises RunError naming the file if it is absent or not one that a run wrote.
    """
    path = Path(path) / CONFIG
    stored = read_json(path)
    try:
        return StoredRun(
            TrainConfig.from_dict(stored["train"]),
            stored["model"]["name"],
            stored["model"]["arguments"],
            {key: stored["data"][key] for key in ("label_names", "features", "sequences")},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: not the configuration of a run ({error})") from error


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
    return dataclasses.replace(stored, **given)
