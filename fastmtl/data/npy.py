"""Arrays in numpy's `.npy` format, and data sets that are a directory of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from fastmtl.data.budget import Budget
from fastmtl.data.dataset import MultiTaskData
from fastmtl.data.errors import DataError
from fastmtl.data.fields import Fields, gather, require_file
from fastmtl.data.joining import append_test
from fastmtl.data.rows import Array, FileRows, Rows

# Of the versions of the format, numpy writes the third for structured arrays alone.
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@dataclass(frozen=True)
class Header:
    """What an array declares of itself: `begin` is where its values start, in bytes."""

    shape: tuple[int, ...]
    columns_first: bool
    dtype: np.dtype[Any]
    begin: int

    @property
    def count(self) -> int:
        """The number of values."""
        return math.prod(self.shape)


def read_header(stream: IO[bytes], size: int, source: str, name: str) -> Header:
    """The header of an array of `size` bytes, which has to be as long as it declares.

    Raises DataError for other content and for a pickle.
    """
    try:
        version = npy.read_magic(stream)
    except ValueError:
        expected = "an array in .npy format"
        raise DataError.at(source, name, expected, "other content") from None
    if version not in _HEADERS:
        raise DataError.at(source, name, "numbers or strings", f".npy format {version}")
    shape, columns_first, dtype = _HEADERS[version](stream)
    header = Header(shape, columns_first, dtype, stream.tell())
    if dtype.hasobject:
        got = "Python objects (a pickle, which is never loaded)"
        raise DataError.at(source, name, "an array", got)
    if min(shape, default=0) < 0 or header.begin + header.count * dtype.itemsize != size:
        got = f"a broken one ({size} bytes for {dtype} of shape {shape})"
        raise DataError.at(source, name, "an array", got)
    return header


def rows_of(path: Path, offset: int, source: str, name: str, header: Header) -> Rows | str:
    """The array's rows, read from the file where it begins at `offset`; or why there are none."""
    if header.dtype.kind not in "fiub" or not header.shape:
        return f"{header.dtype} of shape {header.shape}"
    if header.columns_first and len(header.shape) > 1:
        return "one in Fortran order, whose rows are in pieces"
    return FileRows(path, offset + header.begin, source, name, header.shape, header.dtype)


def load_npy(
    path: str | Path,
    *,
    test: str | Path | None = None,
    seed: int = 0,
    for_training: bool = True,
    memory: str = "load",
) -> MultiTaskData:
    """Load a directory of `.npy` files: the layout and arguments of `load_npz`, a file an array.

    Args:
        path: the directory.
        test: a second directory of the same layout, whose samples are the test split.
        seed: as for `MultiTaskData.from_arrays`.
        for_training: as for `MultiTaskData.from_arrays`.
        memory: as for `load`.

    Raises:
        DataError: for files that cannot be used.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(folder + "/x.npy", np.ones((10, 3), np.float16))
        ...     np.save(folder + "/y.npy", np.eye(2)[[0, 1] * 5])
        ...     load_npy(folder, memory="stream").modalities
        {'x': (3,)}
    """
    fields = read_npy(path, memory)
    if test is not None:
        fields = append_test(fields, read_npy(test, memory))
    return fields.finish(seed, for_training)


def read_npy(path: str | Path, memory: str = "load") -> Fields:
    """The fields of a directory of `.npy` files."""
    path, source = Path(path), str(path)
    if not path.is_dir():
        raise DataError.at(source, "file", "a directory of .npy files", "something else")
    files = {each.stem: each for each in sorted(path.glob("*.npy"))}

    def header_of(name: str) -> Header:
        file = require_file(files[name])
        try:
            with file.open("rb") as stream:
                return read_header(stream, file.stat().st_size, str(file), name)
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            raise DataError.at(str(file), name, "an array", f"a broken one ({error})") from None

    def read(name: str) -> Array:
        header, file = header_of(name), files[name]
        copied = header.dtype != np.float32
        Budget(str(file), file).take_array(name, header.count, header.dtype.itemsize, copied=copied)
        return np.asarray(np.load(file, allow_pickle=False))

    def rows(name: str) -> Rows | str:
        return rows_of(files[name], 0, source, name, header_of(name))

    return gather(source, files, read, rows, memory)
