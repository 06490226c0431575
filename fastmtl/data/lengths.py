"""How many steps of each sequence are valid: for all modalities together, or for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastmtl._checks import did_you_mean
from fastmtl.data.checks import as_array
from fastmtl.data.errors import DataError
from fastmtl.data.stored import Values

# (N,) for all sequences, or by modality.
Lengths = Tensor | dict[str, Tensor] | None


def of_modality(lengths: Lengths, name: str) -> Tensor | None:
    """The lengths (N,) of one modality, None where no step is padded."""
    return lengths.get(name) if isinstance(lengths, Mapping) else lengths


def lengths_at(lengths: Lengths, rows: Tensor | slice) -> Lengths:
    """The lengths of some rows, (n,) indices or a slice."""
    if isinstance(lengths, dict):
        return {name: each[rows] for name, each in lengths.items()}
    return None if lengths is None else lengths[rows]


def check_lengths(source: str, value: Any, x: Mapping[str, Values]) -> Lengths:
    """Numbers of valid steps (N,) as int64, each from 1 to the sequences' one number of steps; or
    a dict of them by modality, each up to that sequence's number of steps, and 0 for a sample that
    lacks this one of several modalities."""
    if isinstance(value, Mapping):
        return {name: _lengths_of(source, name, each, x) for name, each in value.items()}
    sizes = {field: t.shape[1] for field, t in x.items() if t.dim() == 3}
    steps = set(sizes.values())
    if not steps:
        got = "lengths for flat features (N, D)"
        raise DataError.at(source, "lengths", "sequence features (N, L, D)", got)
    if len(steps) > 1:
        # They would not say which steps of the longer one are padding.
        expected = (
            "sequences of one number of steps, since lengths hold for all of them (name those of "
            "one lengths_<modality>, or leave lengths out where no step is padded)"
        )
        got = ", ".join(f"{field} with {size}" for field, size in sizes.items())
        raise DataError.at(source, "lengths", expected, got)
    (most,) = steps
    return _check_steps(source, "lengths", value, 1, most)


def _lengths_of(source: str, modality: str, value: Any, x: Mapping[str, Values]) -> Tensor:
    field = f"lengths_{modality}"
    names = [name.removeprefix("x_") for name, each in x.items() if each.dim() == 3 and name != "x"]
    if modality not in names:
        expected = (
            f"lengths of a sequence (N, L, D), {' or '.join(names) or 'of which there is none'}"
        )
        raise DataError.at(source, field, expected, repr(modality) + did_you_mean(modality, names))
    least = 0 if len(x) > 1 else 1
    return _check_steps(source, field, value, least, x[f"x_{modality}"].shape[1])


def _check_steps(source: str, field: str, value: Any, least: int, most: int) -> Tensor:
    array = as_array(value)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        got = f"{array.dtype} of shape {array.shape}"
        raise DataError.at(source, field, "integers of shape (N,)", got)
    bad = (array < least) | (array > most)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        expected = f"from {least} to {most} steps (the size of the sequences)"
        raise DataError.at(source, field, expected, f"{array[row].item()} at row {row}")
    return torch.from_numpy(array.astype(np.int64))
