"""Data sets in numpy's `.npz` archives. A pickle is never loaded."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from fastmtl.data.budget import Budget
from fastmtl.data.dataset import MultiTaskData
from fastmtl.data.errors import DataError
from fastmtl.data.fields import Fields, gather, require_file
from fastmtl.data.joining import append_test
from fastmtl.data.npy import Header, read_header, rows_of
from fastmtl.data.rows import Array, Rows

# A member's own header: 26 bytes, and how long the name and what else stands before its values are.
_LOCAL = "<26x2H"


def load_npz(
    path: str | Path,
    *,
    test: str | Path | None = None,
    seed: int = 0,
    for_training: bool = True,
    memory: str = "load",
) -> MultiTaskData:
    """Load an `.npz` archive.

    It holds `x`, or several `x_<modality>`, each (N, D) or (N, L, D), and `y` (N, T) of 0, 1 and
    NaN for missing; optionally `lengths` (N,), `label_names` (T,), `split` (N,) of train, val and
    test, `group` (N,).

    Args:
        path: the archive.
        test: a second archive of the same layout, whose samples are the test split.
        seed: as for `MultiTaskData.from_arrays`.
        for_training: as for `MultiTaskData.from_arrays`.
        memory: as for `load`.

    Raises:
        DataError: for an archive that cannot be used.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(folder + "/toy.npz", x=np.ones((10, 3)), y=np.eye(2)[[0, 1] * 5])
        ...     load_npz(folder + "/toy.npz")
        MultiTaskData('toy', {'x': (3,)}, 2 tasks, 6 train, 2 val, 2 test)
    """
    fields = read_npz(path, memory)
    if test is not None:
        fields = append_test(fields, read_npz(test, memory))
    return fields.finish(seed, for_training)


def read_npz(path: str | Path, memory: str = "load") -> Fields:
    """The fields of an `.npz` archive."""
    path = require_file(path)
    if not zipfile.is_zipfile(path):
        got = "something else, or an archive cut short"
        raise DataError.at(str(path), "file", "an .npz archive (zip)", got)
    budget = Budget(str(path), path)
    try:
        archive = zipfile.ZipFile(path)
    # The zip and .npy readers raise whatever damage makes them stumble over.
    except Exception as error:
        got = f"a broken one ({error})"
        raise DataError.at(str(path), "file", "an .npz archive", got) from None

    @contextmanager
    def reading(name: str) -> Iterator[None]:
        try:
            yield
        except DataError:
            raise
        except Exception as error:
            got = f"a broken one ({error or type(error).__name__})"
            raise DataError.at(str(path), name, "an array", got) from None

    def read(name: str) -> Array:
        with reading(name):
            return _read_member(archive, members[name], name, budget)

    def rows(name: str) -> Rows | str:
        with reading(name):
            return _member_rows(path, archive, members[name], name)

    with archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        return gather(str(path), members, read, rows, memory)


def _header(archive: zipfile.ZipFile, member: zipfile.ZipInfo, source: str, name: str) -> Header:
    with archive.open(member) as stream:
        return read_header(stream, member.file_size, source, name)


def _read_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, budget: Budget
) -> Array:
    """An array, once its header has shown that it fits the member and the budget."""
    header = _header(archive, member, budget.source, name)
    copied = header.dtype != np.float32
    budget.take_array(name, header.count, header.dtype.itemsize, copied=copied)
    with archive.open(member) as stream:
        return np.asarray(npy.read_array(stream, allow_pickle=False))


def _member_rows(
    path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str
) -> Rows | str:
    """The rows of an array that is not compressed, read past the archive; or why there are none."""
    if member.compress_type != zipfile.ZIP_STORED:
        return "a compressed one (np.savez writes others, np.savez_compressed these)"
    header = _header(archive, member, str(path), name)
    with path.open("rb") as file:
        file.seek(member.header_offset)
        names = struct.unpack(_LOCAL, file.read(struct.calcsize(_LOCAL)))
    begin = member.header_offset + struct.calcsize(_LOCAL) + sum(names)
    if begin + member.file_size > path.stat().st_size:
        return "one that is cut short"
    return rows_of(path, begin, str(path), name, header)
