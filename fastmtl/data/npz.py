"""Data sets in numpy's `.npz` archives. A pickle is never loaded."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from fastmtl.data.budget import Budget
from fastmtl.data.checks import Array
from fastmtl.data.dataset import MultiTaskData
from fastmtl.data.errors import DataError
from fastmtl.data.fields import Fields, append_test, gather, require_file

# Of the versions of the format, numpy writes the third for structured arrays alone.
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def load_npz(
    path: str | Path, *, test: str | Path | None = None, seed: int = 0, for_training: bool = True
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

    Raises:
        DataError: for an archive that cannot be used.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(folder + "/toy.npz", x=np.ones((10, 3)), y=np.eye(2)[[0, 1] * 5])
        ...     load_npz(folder + "/toy.npz")
        MultiTaskData('toy', {'x': (3,)}, 2 tasks, 6 train, 2 val, 2 test)
    """
    fields = read_npz(path)
    if test is not None:
        fields = append_test(fields, read_npz(test))
    return fields.finish(seed, for_training)


def read_npz(path: str | Path) -> Fields:
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

    def read(name: str) -> Array:
        try:
            return _read_member(archive, members[name], name, budget)
        except DataError:
            raise
        except Exception as error:
            got = f"a broken one ({error or type(error).__name__})"
            raise DataError.at(str(path), name, "an array", got) from None

    with archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        return gather(str(path), members, read)


def _read_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, budget: Budget
) -> Array:
    """An array, once its header has shown that it fits the member and the budget."""
    with archive.open(member) as stream:
        try:
            version = npy.read_magic(stream)
        except ValueError:
            expected = "an array in .npy format"
            raise DataError.at(budget.source, name, expected, "other content") from None
        if version not in _HEADERS:
            raise DataError.at(budget.source, name, "numbers or strings", f".npy format {version}")
        shape, _, dtype = _HEADERS[version](stream)
        begin = stream.tell()
    if dtype.hasobject:
        got = "Python objects (a pickle, which is never loaded)"
        raise DataError.at(budget.source, name, "an array", got)
    count = math.prod(shape)
    if min(shape, default=0) < 0 or begin + count * dtype.itemsize != member.file_size:
        got = f"a broken one ({member.file_size} bytes for {dtype} of shape {shape})"
        raise DataError.at(budget.source, name, "an array", got)
    budget.take_array(name, count, dtype.itemsize, copied=dtype != np.float32)
    with archive.open(member) as stream:
        return np.asarray(npy.read_array(stream, allow_pickle=False))
