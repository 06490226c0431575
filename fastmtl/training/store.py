"""What a run keeps on the disk to be continued and used from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import fastmtl
from fastmtl.training import directory
from fastmtl.training.checkpoint import RunError, load_tensors, save_tensors, take_prefix
from fastmtl.training.identity import Identity
from fastmtl.training.lock import DirectoryLock
from fastmtl.training.recipes import OF_DATA, class_name
from fastmtl.training.state import Progress, RunState

Snapshot = tuple[dict[str, Tensor], dict[str, Any]]


class RunStore:
    """The configuration, the model and the checkpoint of one run, in a directory that is held.

    Args:
        path: the directory.
        lock: that it is held.
        record: JSON-able: the options under "train", and what "model", "balancer" and "data" are.
        identity: stands in every file.
    """

    def __init__(
        self, path: Path, lock: DirectoryLock, record: Mapping[str, Any], identity: Identity
    ) -> None:
        self.path = path
        self.lock = lock
        self.record = record
        self.identity = identity

    @classmethod
    def begin(
        cls, path: Path, lock: DirectoryLock, record: Mapping[str, Any], data: str
    ) -> RunStore:
        """That of a new run on the data of this fingerprint; `open` writes."""
        return cls(path, lock, record, Identity.new(record, data))

    @classmethod
    def resume(
        cls, path: Path, lock: DirectoryLock, record: Mapping[str, Any], data: str
    ) -> RunStore:
        """That of the run in the directory. Raises RunError if it is another than `record` says."""
        stored = directory.read(path)
        differing = stored.record["train"].keys() ^ record["train"].keys()
        if differing := sorted(differing - OF_DATA):
            raise RunError(
                f"{path / directory.CONFIG}: expected the options of this version of fastmtl, got "
                f"those of another, which differ in {', '.join(differing)}; train anew"
            )
        directory.resumed_config(path, record["train"])
        for kind in ("model", "balancer"):
            if stored.record[kind] != record[kind]:
                there, here = (_shown(each[kind]) for each in (stored.record, record))
                raise RunError(f"{kind}: expected {there} as in the run to resume, got {here}")
        if stored.identity.data != data:
            raise RunError(f"{path}: the data is not the data this run was trained on")
        return cls(path, lock, record, stored.identity)

    @property
    def title(self) -> str:
        """Model and balancer."""
        return directory.title(self.record)

    def open(self, *, keep_state: bool) -> None:
        """Clear the directory of the results of an earlier or shorter run; write config.json."""
        directory.clear(self.path, keep_state=keep_state)
        directory.write(self.path, self.record, self.identity)

    def has_checkpoint(self) -> bool:
        """Whether there is one to go on from."""
        return (self.path / directory.CHECKPOINT).is_file()

    def save(self, state: RunState, snapshot: Snapshot) -> None:
        """Store what `RunState` gave: the best model, and then where to go on."""
        self.lock.check()
        tensors, values = snapshot
        if best := take_prefix("best", tensors):
            self._save_model(state, best, Progress.from_dict(values))
        values = {**values, "run": self.identity.to_dict()}
        save_tensors(self.path / directory.CHECKPOINT, tensors, values)

    def restore(self, state: RunState, device: torch.device) -> None:
        """Bring `state` to where the checkpoint is, and the model file to the best of it."""
        path = self.path / directory.CHECKPOINT
        tensors, values = load_tensors(path)
        self.identity.check(path, values)
        try:
            state.load(tensors, values, device)
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise RunError(f"{path}: does not fit this run ({reason})") from error
        if state.best and not self._has_model(state.progress):
            self._save_model(state, state.best, state.progress)

    def _save_model(self, state: RunState, best: Mapping[str, Tensor], progress: Progress) -> None:
        content = state.model_tensors(best)
        save_tensors(self.path / directory.MODEL, content, self._about_model(progress))

    def _has_model(self, progress: Progress) -> bool:
        try:
            _, values = load_tensors(self.path / directory.MODEL)
        except RunError:
            return False
        return bool(values == self._about_model(progress))

    def _about_model(self, progress: Progress) -> dict[str, Any]:
        about = {"epoch": progress.best_epoch, "threshold": progress.threshold}
        return {**about, "run": self.identity.to_dict()}


def describe_run(
    options: Mapping[str, Any], model: Any, balancer: nn.Module, data: Mapping[str, Any]
) -> dict[str, Any]:
    """The record of a run, as it is read back: its options, and what it trains on what."""
    name = class_name(model)
    record = {
        "fastmtl": fastmtl.__version__,
        "train": options,
        "model": {
            "name": name,
            "class": type(model).__name__,
            "arguments": model.config() if name else {},
        },
        "balancer": {"class": type(balancer).__name__},
        "data": data,
    }
    return dict(json.loads(json.dumps(record)))


def _shown(section: Mapping[str, Any]) -> str:
    arguments = section.get("arguments", {}).items()
    return f"{section['class']}({', '.join(f'{name}={value}' for name, value in arguments)})"
