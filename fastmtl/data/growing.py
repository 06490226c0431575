"""HDF5 files that grow: their datasets by rows, written in blocks, on disks that may be full."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fastmtl.data.rows import Array

# A row that is read alone brings its chunk; a block is what one call writes.
_CHUNK_BYTES, _BLOCK_BYTES = 64 << 10, 4 << 20


@contextmanager
def growing_file(path: Path) -> Iterator[GrowingFile]:
    """A new HDF5 file; OSError when the system refuses to write it."""
    import h5py

    with _Disk(path) as disk:
        with h5py.File(disk, "w") as file:
            yield GrowingFile(file, disk)
        disk.check()


class GrowingFile:
    """A file (`h5`), and whether the disk has taken what was written."""

    def __init__(self, h5: Any, disk: _Disk) -> None:
        self.h5 = h5
        self.check = disk.check


class _Disk(io.FileIO):
    """A file that keeps the first error of its writes, and tells HDF5 nothing of it.

    HDF5 cannot close a file that it cannot write, and crashes the process later on.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "wb+")
        self._refused: OSError | None = None

    def check(self) -> None:
        """Raise the error that was kept."""
        if self._refused is not None:
            raise self._refused

    def write(self, data: Any, /) -> int:
        """All of `data`: what the system takes less of is a full disk too."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view) and self._refused is None:
            with self._kept():
                done += super().write(view[done:]) or 0
        return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        """As that of any file; growing it may be refused too."""
        with self._kept():
            return super().truncate(size)
        return size or 0

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._refused = self._refused or error


class Growing:
    """Rows of one shape, appended to a dataset in chunks of about 64 KiB.

    Args:
        file: what `growing_file` gave.
        name: of the dataset.
        shape: of a row.
        dtype: of the values.
    """

    def __init__(self, file: GrowingFile, name: str, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        row_bytes = math.prod(shape) * self.dtype.itemsize
        rows = max(_CHUNK_BYTES // row_bytes, 1)
        self._file = file
        self._dataset = file.h5.create_dataset(
            name, (0, *shape), self.dtype, maxshape=(None, *shape), chunks=(rows, *shape)
        )
        self._block = max(_BLOCK_BYTES // row_bytes // rows, 1) * rows
        self._waiting: list[Array] = []
        self._held = 0

    def add(self, rows: Array) -> None:
        """Append rows (n, *shape)."""
        self._waiting.append(rows)
        self._held += len(rows)
        if self._held >= self._block:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if not self._held:
            return
        start = len(self._dataset)
        self._dataset.resize(start + self._held, 0)
        self._dataset[start:] = np.concatenate(self._waiting)
        self._file.check()
        self._waiting, self._held = [], 0
