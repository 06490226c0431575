"""Columns of lists as Arrow has them: one list a sample, in tables in memory or in files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastmtl.data.errors import DataError
from fastmtl.data.rows import Array, Rows
from fastmtl.data.splits import IntArray


class Columns(ABC):
    """Columns by name, a value a sample.

    Args:
        source: what the data is called in messages.
        count: the number of samples.
        kinds: the type of each column, of pyarrow.
        class_names: what the numbers of a column stand for, where it says so.
    """

    def __init__(
        self, source: str, count: int, kinds: dict[str, Any], class_names: dict[str, list[str]]
    ) -> None:
        self.class_names = class_names
        self.source = source
        self.count = count
        self.kinds = {name: getattr(kind, "storage_type", kind) for name, kind in kinds.items()}

    @abstractmethod
    def parts(self, name: str) -> Iterator[Any]:
        """All values of a column in order, some at a time, as arrays of pyarrow."""

    @abstractmethod
    def take(self, name: str, rows: IntArray) -> Any:
        """Some values of a column, whose rows ascend, as an array of pyarrow."""


class _Lists(NamedTuple):
    """The lists of some samples: their numbers one behind another, and how many are whose."""

    values: Array  # (S, D), S samples or steps
    steps: IntArray | None  # (n,) of sequences
    there: NDArray[np.bool_]  # (n,) False for a null


class ArrowRows(Rows):
    """Features (N, D) of lists of numbers or (N, L, D) of lists of such lists, padded with 0.

    A null is a sample without the modality: NaN, or a sequence of no steps.

    Attributes:
        lengths: the steps (N,) of sequences, None for features that are none.
    """

    def __init__(self, columns: Columns, name: str) -> None:
        kind, source = columns.kinds[name], columns.source
        depth, numbers = _nesting(kind)
        if depth not in (1, 2) or not _is_number(numbers):
            expected = "lists of numbers, or lists of such lists for sequences"
            raise DataError.at(source, name, expected, str(kind))
        widths = set[int]()
        steps, nulls = [], 0
        for part in columns.parts(name):
            outer = _lengths(part)
            steps.append(np.maximum(outer, 0))
            nulls += int((outer < 0).sum())
            inner = outer if depth == 1 else _lengths(part.flatten())
            widths |= set(np.unique(inner[inner >= 0]).tolist())
            if depth == 2 and (inner < 0).any():
                raise DataError.at(source, name, "steps that are all there", "a null among them")
        if len(widths) != 1 or widths == {0}:
            got = f"lists of {', '.join(map(str, sorted(widths)))}" if widths else "none"
            raise DataError.at(source, name, "as many numbers in all lists", got)
        self.lengths: IntArray | None = None
        shape: tuple[int, ...] = (columns.count, widths.pop())
        dtype = np.dtype(numbers.to_pandas_dtype())
        if depth == 2:
            found = np.concatenate(steps).astype(np.int64)
            shape = (columns.count, int(found.max()), shape[1])
            self.lengths = found
        elif nulls:
            dtype = np.result_type(dtype, np.float32)
        super().__init__(source, name, shape, dtype)
        self._columns = columns

    def read(self, rows: NDArray[np.int64], out: Array) -> None:
        order = np.argsort(rows, kind="stable")
        lists = _decoded(self._columns.take(self.field, rows[order]), self.ndim == 3)
        if lists.values.dtype.kind == "f" and out.dtype.kind != "f":
            got = f"a null in rows {rows.min()} to {rows.max()}"
            raise DataError.at(self.source, self.field, "lists of numbers", got)
        found = np.empty_like(out)
        with np.errstate(over="ignore"):
            if lists.steps is None:
                found[lists.there] = lists.values
                if not lists.there.all():
                    found[~lists.there] = np.nan
            else:
                found[...] = 0
                found[np.arange(self.shape[1]) < lists.steps[:, None]] = lists.values
        out[order] = found


def scalars(columns: Columns, name: str) -> Array:
    """The values (N,) of a column that holds no lists, or (N, T) of lists of T numbers; NaN, or ""
    of strings, for a null."""
    import pyarrow as pa

    depth, kind = _nesting(columns.kinds[name])
    if depth == 1:
        rows = ArrowRows(columns, name)
        out = np.empty(rows.shape, np.float64)
        rows.read(np.arange(columns.count), out)
        return out
    parts = [pa.array(part) for part in columns.parts(name)]
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        values = [each or "" for part in parts for each in part.to_pylist()]
        return np.array(values, dtype=object)
    if depth or not _is_number(kind):
        raise DataError.at(columns.source, name, "numbers, strings or lists of numbers", str(kind))
    return np.concatenate([part.to_numpy(zero_copy_only=False) for part in parts])


def _nesting(kind: Any) -> tuple[int, Any]:
    """How deep lists are, and of what."""
    import pyarrow as pa

    depth = 0
    while (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    ):
        kind, depth = kind.value_type, depth + 1
    return depth, kind


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    checks = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    return any(check(kind) for check in checks)


def _lengths(lists: Any) -> IntArray:
    """Lengths of lists, -1 for a null."""
    import pyarrow.compute as pc

    found = pc.fill_null(pc.list_value_length(lists), -1)
    out: IntArray = found.to_numpy(zero_copy_only=False).astype(np.int64)
    return out


def _decoded(lists: Any, sequences: bool) -> _Lists:
    outer = _lengths(lists)
    inner = lists.flatten() if sequences else lists
    width = max(_lengths(inner).max(initial=0), 1)
    values = inner.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return _Lists(values, np.maximum(outer, 0) if sequences else None, outer >= 0)
