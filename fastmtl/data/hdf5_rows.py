"""Rows of datasets in HDF5 files."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fastmtl.data.errors import DataError
from fastmtl.data.rows import Array, FileRows, Rows, SpanRows

# Of a dataset in chunks all that is unpacked to read one row.
_MOST_BLOCK, _SLOW_BLOCK = 256 << 20, 1 << 20


class Hdf5Rows(SpanRows):
    """Rows that HDF5 reads: those of a dataset in chunks, which may be compressed.

    Rows that lie in one row of chunks are read by one call, so that no chunk is unpacked twice.

    Args:
        path: the file.
        node: the dataset; the file is opened anew.
        field: what the array is called in messages.
    """

    def __init__(self, path: Path, node: Any, field: str) -> None:
        import h5py

        super().__init__(str(path), field, node.shape, node.dtype, (node.chunks or (1,))[0])
        self._dataset = h5py.File(path, "r")[node.name]

    def _span(self, first: int, out: Array) -> None:
        with reading(self.source, self.field):
            self._dataset.read_direct(out, np.s_[first : first + len(out)])


def rows_of(path: Path, node: Any, name: str) -> Rows | str:
    """The rows of a dataset; or why there are none to be had."""
    import h5py

    if not isinstance(node, h5py.Dataset) or node.external or node.is_virtual:
        return "something else, or one whose values are in other files"
    if node.dtype.kind not in "fiub" or not node.shape:
        return f"{node.dtype} of shape {node.shape}"
    if node.chunks is None and (offset := node.id.get_offset()) is not None:
        whole = offset + node.size * node.dtype.itemsize <= os.path.getsize(path)
        if whole and node.id.get_type().equal(h5py.h5t.py_create(node.dtype, logical=True)):
            return FileRows(path, offset, str(path), name, node.shape, node.dtype)
    rows = Hdf5Rows(path, node, name)
    chunk = math.prod(node.chunks or (1,)) * node.dtype.itemsize
    if (size := max(rows.block * rows.row_bytes, chunk)) > _MOST_BLOCK:
        most = _MOST_BLOCK >> 20
        return (
            f"one in chunks of {rows.block} rows that take {size >> 20} MiB, more than {most} MiB"
        )
    return rows


def slow_chunks(rows: Rows) -> str | None:
    """A warning, where far more is unpacked for a row than the row."""
    if not isinstance(rows, Hdf5Rows) or rows.block * rows.row_bytes < _SLOW_BLOCK:
        return None
    return (
        f"{rows.source}: {rows.field} is stored in chunks of {rows.block} rows, which are unpacked "
        "again for every few that are used: stored without chunks, or in chunks of one row, it is "
        f"read faster (h5repack -l {rows.field}:CONTI)"
    )


@contextmanager
def reading(source: str, name: str) -> Iterator[None]:
    """Raise DataError for whatever damage makes HDF5 stumble over."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        got = f"one that cannot be read ({error})"
        raise DataError.at(source, name, "a dataset", got) from None
