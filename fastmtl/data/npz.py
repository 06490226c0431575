"""Data sets in numpy's `.npz` archives. A pickle is never loaded."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from fastmtl.data.checks import Array
from fastmtl.data.dataset import MultiTaskData
from fastmtl.data.errors import DataError
from fastmtl.data.fields import Fields, append_test, gather, require_file

_BROKEN = (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)


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
    try:
        archive = np.load(path, allow_pickle=False)
    except _BROKEN as error:
        raise DataError.at(
            str(path), "file", "an .npz archive", f"a broken one ({error})"
        ) from None

    def read(name: str) -> Array:
        try:
            value = archive[name]
        except _BROKEN as error:
            got = f"a broken one ({error or type(error).__name__})"
            if "allow_pickle" in str(error):
                got = "Python objects (a pickle, which is never loaded)"
            raise DataError.at(str(path), name, "an array", got) from None
        if not isinstance(value, np.ndarray):
            raise DataError.at(str(path), name, "an array in .npy format", "other content")
        return value

    with archive:
        return gather(str(path), archive.files, read)
