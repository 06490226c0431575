"""Arrays that stay in their files and are read by row."""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastmtl.data.errors import DataError

Array = NDArray[Any]
# To read over a gap of so many bytes takes no longer than another call.
_GAP_BYTES = 16 << 10
_SPAN_BYTES = 4 << 20
# Kinds of numbers that are handed on as they are stored, for the device to convert.
_KEPT = "?bBhief"


class Rows(ABC):
    """An array (N, ...) of numbers of which any rows can be read.

    Args:
        source: what the data is called in messages.
        field: what the array is called in messages.
        shape: of the array.
        dtype: as it is stored.
    """

    def __init__(self, source: str, field: str, shape: Sequence[int], dtype: np.dtype[Any]) -> None:
        self.source = source
        self.field = field
        self.shape = tuple(shape)
        self.stored = dtype

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the rows that `read` gives: the stored one, or float32 for one of 8 bytes and one
        that PyTorch does not compute with."""
        return self.stored.newbyteorder("=") if self.stored.char in _KEPT else np.dtype(np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def read(self, rows: NDArray[np.int64], out: Array) -> None:
        """Read some rows, in any order.

        Args:
            rows: (n,), which.
            out: (n, ...) of `dtype`, is filled.

        Raises:
            DataError: if the file no longer has them, or they cannot be read.
        """


class SpanRows(Rows):
    """Rows that are read in the order in which they lie, near ones by one call.

    Args:
        source: what the data is called in messages.
        field: what the array is called in messages.
        shape: of the array.
        dtype: as it is stored.
        block: rows that are read together whenever one of them is.
    """

    def __init__(
        self, source: str, field: str, shape: Sequence[int], dtype: np.dtype[Any], block: int = 1
    ) -> None:
        super().__init__(source, field, shape, dtype)
        self.block = block
        self.row_bytes = max(math.prod(self.shape[1:]) * dtype.itemsize, 1)

    def read(self, rows: NDArray[np.int64], out: Array) -> None:
        if not len(rows):
            return
        places = np.argsort(rows, kind="stable")
        ordered = rows[places]
        apart = np.diff(ordered)
        most = -(-max(_SPAN_BYTES // self.row_bytes, 1) // self.block) * self.block
        far = apart > max(_GAP_BYTES // self.row_bytes, 1)
        far &= np.diff(ordered // self.block) > 0
        far |= np.diff(ordered // most) > 0
        starts = np.append(0, np.flatnonzero(far) + 1)
        ends = np.append(starts[1:], len(rows))
        # Where rows and places both go on by one, the file holds the bytes of `out` as they are.
        breaks = np.append(0, np.cumsum((apart != 1) | (np.diff(places) != 1)))
        whole = (breaks[starts] == breaks[ends - 1]) & (out.dtype == self.stored)
        spans = np.stack([starts, ends, whole, places[starts], ordered[starts]], 1)
        # Of large rows that lie far apart every one is a span: no more is done here than it needs.
        for start, end, as_it_is, place, first in spans.tolist():
            if as_it_is:
                self._span(first, out[place : place + end - start])
            else:
                self._scatter(ordered[start:end], places[start:end], out)

    def _scatter(self, rows: NDArray[np.int64], places: NDArray[np.int64], out: Array) -> None:
        """Fill the `places` of `out` with rows that ascend and have few others in between."""
        first, last = int(rows[0]), int(rows[-1])
        span = np.empty((last - first + 1, *self.shape[1:]), self.stored)
        self._span(first, span)
        with np.errstate(over="ignore"):
            out[places] = span[rows - first]

    @abstractmethod
    def _span(self, first: int, out: Array) -> None:
        """Read as many rows as `out` (n, ...), of the stored dtype, has, from `first` on."""


class FileRows(SpanRows):
    """Rows that lie one after another in a file, as numpy and HDF5 write arrays.

    They are read and not mapped: a file that is cut short raises an error, where a map would end
    the process, and what was read counts as the system's cache and not as the process's memory.

    Args:
        path: the file.
        offset: of the first row, in bytes.
        source: what the data is called in messages.
        field: what the array is called in messages.
        shape: of the array.
        dtype: of its values.
    """

    def __init__(
        self,
        path: Path,
        offset: int,
        source: str,
        field: str,
        shape: Sequence[int],
        dtype: np.dtype[Any],
    ) -> None:
        super().__init__(source, field, shape, dtype)
        self._file = path.open("rb", buffering=0)
        self._offset = offset
        self._lock = threading.Lock()

    def _span(self, first: int, out: Array) -> None:
        view = memoryview(out.reshape(-1).view(np.uint8).data)
        with self._lock:
            try:
                self._file.seek(self._offset + first * self.row_bytes)
                while len(view):
                    done = self._file.readinto(view)
                    if not done:
                        got = f"a file that ends before row {first + len(out) - 1}"
                        expected = f"{len(self)} rows"
                        raise DataError.at(self.source, self.field, expected, got)
                    view = view[done:]
            except OSError as error:
                raise DataError.at(self.source, self.field, "rows", str(error)) from error

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


class JoinedRows(Rows):
    """The rows of one array, and those of another behind them.

    Args:
        first: (N, D) or (N, L, D), an array or rows in a file.
        second: the same but for N; where L differs, the steps beyond are 0.
    """

    def __init__(self, first: Rows | Array, second: Rows | Array) -> None:
        named = next((each for each in (first, second) if isinstance(each, Rows)), None)
        source, field = ("", "") if named is None else (named.source, named.field)
        most = (max(sizes) for sizes in zip(first.shape[1:], second.shape[1:], strict=True))
        dtype = first.dtype if first.dtype == second.dtype else np.dtype(np.float32)
        super().__init__(source, field, (len(first) + len(second), *most), dtype)
        self.parts = (first, second)

    def read(self, rows: NDArray[np.int64], out: Array) -> None:
        size = len(self.parts[0])
        for part, start, mine in zip(
            self.parts, (0, size), (rows < size, rows >= size), strict=True
        ):
            there = np.flatnonzero(mine)
            if isinstance(part, Rows):
                found = np.empty((len(there), *part.shape[1:]), part.dtype)
                part.read(rows[there] - start, found)
            else:
                found = part[rows[there] - start]
            if found.ndim == 3 and found.shape[1] < self.shape[1]:
                out[there, found.shape[1] :] = 0
            with np.errstate(over="ignore"):
                out[(there, slice(part.shape[1]))] = found
