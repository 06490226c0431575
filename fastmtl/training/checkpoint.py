"""Files that are either whole or not there: atomic writes, and tensors with JSON in safetensors.

What a run is resumed or used from carries a checksum of its content, so that a damaged file is an
error and not a silently different model.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fastmtl._files import replacing
from fastmtl.data import StoredFeatures

_Values = TypeVar("_Values", Tensor, Tensor | StoredFeatures)
# No file that a run writes as JSON comes near this.
MAX_JSON_BYTES = 64 << 20
_CHECKSUM = "checksum"
# What parsers raise for content that is not theirs. RecursionError is a RuntimeError.
_BROKEN = (SafetensorError, OSError, LookupError, ValueError, TypeError, RuntimeError, MemoryError)


class RunError(ValueError):
    """A stored run is missing, damaged, or does not fit what it is used for."""


def write_atomic(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write `content` to `path`, so that a reader finds the old file or the whole new one.

    The bytes go to a temporary file in the same directory, are flushed to the disk, and replace
    `path` in one step, which is flushed too. If anything fails (a full disk, no permission) the
    temporary file is removed, `path` stays as it was, and the OSError names `path`. A device or
    pipe is written to directly.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     write_atomic(Path(directory) / "a.txt", "whole")
        ...     (Path(directory) / "a.txt").read_text()
        'whole'
    """
    data = content.encode() if isinstance(content, str) else content
    target = Path(os.path.realpath(path))
    if not target.exists() or target.is_file():
        with replacing(path) as temporary:
            temporary.write_bytes(data)
        return
    try:
        target.write_bytes(data)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def remove_temporaries(directory: Path, names: Iterable[str]) -> None:
    """Remove what killed processes left of `write_atomic` of these names; nobody else may write."""
    for name in names:
        for path in directory.glob(f".{glob.escape(name)}.*.tmp"):
            path.unlink(missing_ok=True)


def digest(tensors: Mapping[str, Tensor | StoredFeatures], text: str = "") -> str:
    """A hash of a text and of named tensors: names, dtypes, shapes and every bit of the values.

    Features in a file have that of the tensor that they would be in memory.

    Examples:
        >>> import torch
        >>> digest({"w": torch.ones(2)}) == digest({"w": -torch.ones(2)})
        False
    """
    state = hashlib.blake2b(text.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        state.update(f"{name!r} {tensor.dtype} {tuple(tensor.shape)};".encode())
        for part in [tensor] if isinstance(tensor, Tensor) else tensor.parts():
            values = part.detach().cpu().contiguous().flatten()
            state.update(values.view(torch.uint8).numpy().data)
    return state.hexdigest()


def write_json(path: str | os.PathLike[str], value: object) -> None:
    """Write `value` as indented JSON, atomically; NaN is not JSON and raises ValueError."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON object in `path`; RunError naming the file if it cannot be read as one."""
    try:
        value = json.loads(_regular(path, MAX_JSON_BYTES).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(value, dict):
        raise RunError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object with a checksum of the rest of it."""
    return {**value, _CHECKSUM: digest({}, json.dumps(value, sort_keys=True))}


def read_sealed(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON object in `path` that `seal` gave; RunError if it is another since."""
    value = read_json(path)
    stored = value.pop(_CHECKSUM, None)
    _check(path, stored, digest({}, json.dumps(value, sort_keys=True)))
    return value


def save_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: object = None
) -> None:
    """Write named tensors, a JSON-able value and a checksum into one safetensors file, atomically.

    Examples:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     save_tensors(f"{directory}/a.safetensors", {"w": torch.ones(2)}, {"epoch": 3})
        ...     load_tensors(f"{directory}/a.safetensors")
        ({'w': tensor([1., 1.])}, {'epoch': 3})
    """
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(metadata, allow_nan=False)
    about = {"json": text, _CHECKSUM: digest(stored, text)}
    write_atomic(path, safetensors.torch.save(stored, metadata=about))


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], Any]:
    """The tensors (on the CPU) and the value that `save_tensors` wrote.

    Raises RunError naming the file if it is absent, damaged, or not one of these files.
    """
    source = _regular(path)
    try:
        with safe_open(source, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = file.metadata() or {}
        text, metadata = about["json"], json.loads(about["json"])
    except _BROKEN as error:
        raise RunError(f"{path}: not a file that fastmtl wrote ({error})") from error
    _check(path, about.get(_CHECKSUM), digest(tensors, text))
    return tensors, metadata


def _regular(path: str | os.PathLike[str], most: int | None = None) -> Path:
    """The path, if an ordinary file of at most so many bytes is there; a pipe would never end."""
    path = Path(path)
    if not path.exists():
        raise RunError(f"{path}: no such file")
    if not path.is_file():
        raise RunError(f"{path}: expected a file, got a directory, pipe or device")
    if most is not None and (size := path.stat().st_size) > most:
        raise RunError(f"{path}: expected at most {most:,} bytes, got {size:,}")
    return path


def _check(path: str | os.PathLike[str], stored: object, found: str) -> None:
    if stored is None:
        raise RunError(
            f"{path}: has no checksum: it is damaged, or of a version of fastmtl that wrote none "
            "(train the run anew, or use that version)"
        )
    if stored != found:
        raise RunError(f"{path}: is damaged or was changed (its checksum does not match)")


def with_prefix(prefix: str, tensors: Mapping[str, _Values]) -> dict[str, _Values]:
    """The tensors named `prefix.name`.

    Examples:
        >>> import torch
        >>> list(with_prefix("model", {"weight": torch.ones(1)}))
        ['model.weight']
    """
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def take_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under `prefix`, by their names without it: the inverse of `with_prefix`.

    Examples:
        >>> import torch
        >>> list(take_prefix("model", {"model.weight": torch.ones(1), "step": torch.ones(1)}))
        ['weight']
    """
    start = f"{prefix}."
    return {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}
