"""The problems by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from benchmarks.methods.labels import faces, from_file
from benchmarks.methods.problem import Problem
from benchmarks.methods.rooms import rooms

_MADE: dict[str, Callable[[], Problem]] = {"rooms": rooms, "faces": faces}
# Training rows, epochs, rate of learning.
_READ = {"natural_scene": (1200, 15, 2e-3), "yt8m_top100": (4000, 12, 5e-3)}
PROBLEMS = (*_MADE, *_READ)


@lru_cache
def load(name: str, folder: Path | None) -> Problem | None:
    """The problem of that name; None where its file is not in the folder."""
    if name in _MADE:
        return _MADE[name]()
    path = folder / f"{name}.npz" if folder else None
    if path is None or not path.is_file():
        return None
    rows, epochs, lr = _READ[name]
    return from_file(path, rows=rows, epochs=epochs, lr=lr)
