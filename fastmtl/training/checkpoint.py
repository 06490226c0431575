"""Files that are either whole or not there: atomic writes, and tensors with JSON in safetensors."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor


class RunError(ValueError):
    """A stored run is missing, damaged, or does not fit what it is used for."""


def write_atomic(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write `content` to `path`, so that a reader finds the old file or the whole new one.

    The bytes go to a temporary file in the same directory, are flushed to the disk, and replace
    `path` in one step. If anything fails (a full disk, no permission) the temporary file is
    removed, `path` stays as it was, and the OSError names `path`. A device or pipe is written to
    directly.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     write_atomic(Path(directory) / "a.txt", "whole")
        ...     (Path(directory) / "a.txt").read_text()
        'whole'
    """
    data = content.encode() if isinstance(content, str) else content
    target = Path(os.path.realpath(path))
    special = target.exists() and not target.is_file()
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(target if special else temporary, "wb") as file:
            file.write(data)
            file.flush()
            if not special:
                os.fsync(file.fileno())
        if not special:
            os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_json(path: str | os.PathLike[str], value: object) -> None:
    """Write `value` as indented JSON, atomically; NaN is not JSON and raises ValueError."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON object in `path`; RunError naming the file if it cannot be read as one."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(value, dict):
        raise RunError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def save_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: object = None
) -> None:
    """Write named tensors and a JSON-able value into one safetensors file, atomically.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     save_tensors(f"{directory}/a.safetensors", {"w": torch.ones(2)}, {"epoch": 3})
        ...     load_tensors(f"{directory}/a.safetensors")
        ({'w': tensor([1., 1.])}, {'epoch': 3})
    """
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(metadata, allow_nan=False)
    write_atomic(path, safetensors.torch.save(stored, metadata={"json": text}))


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], Any]:
    """The tensors (on the CPU) and the value that `save_tensors` wrote.

    Raises RunError naming the file if it is absent or not one of these files.
    """
    if not Path(path).is_file():
        raise RunError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = (file.metadata() or {})["json"]
        return tensors, json.loads(metadata)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise RunError(f"{path}: not a file that fastmtl wrote ({error})") from error


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors named `prefix.name`.

    Example:
        >>> import torch
        >>> list(with_prefix("model", {"weight": torch.ones(1)}))
        ['model.weight']
    """
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def take_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under `prefix`, by their names without it: the inverse of `with_prefix`.

    Example:
        >>> import torch
        >>> list(take_prefix("model", {"model.weight": torch.ones(1), "step": torch.ones(1)}))
        ['weight']
    """
    start = f"{prefix}."
    return {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}
