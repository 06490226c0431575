"""Sequences of different lengths that lie one behind another, without padding in between."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastmtl.data.budget import Budget, loaded_bytes
from fastmtl.data.errors import DataError
from fastmtl.data.rows import Array, Rows
from fastmtl.data.splits import IntArray


def check_offsets(source: str, field: str, value: Array) -> IntArray:
    """Where the sequences begin, and where the last one ends: (N + 1,) int64, each above the one
    before, or with `offsets_<modality>` equal to it, where a sample lacks the modality."""
    if value.dtype.kind not in "iu" or value.ndim != 1 or len(value) < 2:
        got = f"{value.dtype} of shape {value.shape}"
        raise DataError.at(source, field, "integers of shape (N + 1,)", got)
    offsets = value.astype(np.int64)
    if offsets[0] != 0:
        raise DataError.at(source, field, "0 at first", str(offsets[0]))
    least = 1 if field == "offsets" else 0
    if (short := np.flatnonzero(np.diff(offsets) < least)).size:
        row = int(short[0])
        got = f"{offsets[row + 1]} behind {offsets[row]} at row {row}"
        raise DataError.at(source, field, f"at least {least} more from row to row", got)
    return offsets


def pad(source: str, field: str, values: Array, offsets: IntArray) -> Array:
    """The sequences (N, L, D) of steps (S, D), with 0 behind each up to the longest."""
    shape = _shape(source, field, values.shape, offsets)
    copied = values.dtype != np.float32
    size = loaded_bytes(int(np.prod(shape)), values.dtype.itemsize, copied=copied)
    Budget(source).take(f"{field}, padded to its longest sequence,", size)
    out = np.zeros(shape, values.dtype)
    out[_valid(offsets, np.arange(shape[0]), shape[1])] = values
    return out


class RaggedRows(Rows):
    """The sequences (N, L, D) of steps in a file, each padded when it is read.

    Args:
        steps: the steps (S, D) of all sequences.
        offsets: what `check_offsets` gave.
    """

    def __init__(self, steps: Rows, offsets: IntArray) -> None:
        shape = _shape(steps.source, steps.field, steps.shape, offsets)
        super().__init__(steps.source, steps.field, shape, steps.stored)
        self.steps = steps
        self.offsets = offsets

    def read(self, rows: NDArray[np.int64], out: Array) -> None:
        if not len(rows):
            return
        wanted = [np.arange(self.offsets[row], self.offsets[row + 1]) for row in rows]
        found = np.empty((sum(map(len, wanted)), self.shape[2]), self.dtype)
        self.steps.read(np.concatenate(wanted), found)
        out[...] = 0
        out[_valid(self.offsets, rows, self.shape[1])] = found


def _valid(offsets: IntArray, rows: NDArray[np.int64], most: int) -> NDArray[np.bool_]:
    lengths = offsets[rows + 1] - offsets[rows]
    valid: NDArray[np.bool_] = np.arange(most) < lengths[:, None]
    return valid


def _shape(
    source: str, field: str, shape: tuple[int, ...], offsets: IntArray
) -> tuple[int, int, int]:
    if len(shape) != 2 or shape[0] != offsets[-1]:
        expected = f"({offsets[-1]}, D), the steps of all sequences as its offsets have them"
        raise DataError.at(source, field, expected, f"shape {shape}")
    return len(offsets) - 1, int(np.diff(offsets).max()), shape[1]
