"""Data sets in HDF5 files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastmtl.data.checks import Array
from fastmtl.data.dataset import MultiTaskData
from fastmtl.data.errors import DataError
from fastmtl.data.fields import Fields, append_test, gather, require_file


def load_hdf5(
    path: str | Path, *, test: str | Path | None = None, seed: int = 0, for_training: bool = True
) -> MultiTaskData:
    """Load an HDF5 file: the layout and arguments of `load_npz`, with datasets at the root.

    Strings may be of fixed or variable length.

    Args:
        path: the file.
        test: a second file of the same layout, whose samples are the test split.
        seed: as for `MultiTaskData.from_arrays`.
        for_training: as for `MultiTaskData.from_arrays`.

    Raises:
        DataError: for a file that cannot be used.

    Example:
        >>> import tempfile, h5py
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with h5py.File(folder + "/toy.h5", "w") as file:
        ...         file["x"] = np.random.rand(10, 4, 3)
        ...         file["y"] = np.arange(20).reshape(10, 2) % 2
        ...         file["label_names"] = ["flood", "fire"]
        ...     load_hdf5(folder + "/toy.h5").label_names
        ['flood', 'fire']
    """
    fields = read_hdf5(path)
    if test is not None:
        fields = append_test(fields, read_hdf5(test))
    return fields.finish(seed, for_training)


def read_hdf5(path: str | Path) -> Fields:
    """The fields of an HDF5 file."""
    import h5py

    path = require_file(path)
    try:
        file = h5py.File(path, "r")
    except (OSError, RuntimeError) as error:
        got = f"something else, or a file cut short ({error})"
        raise DataError.at(str(path), "file", "an HDF5 file", got) from None

    def read(name: str) -> Array:
        try:
            node = file[name]
            if not isinstance(node, h5py.Dataset):
                raise DataError.at(str(path), name, "a dataset", f"an HDF5 {type(node).__name__}")
            return np.asarray(node[()])
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            if isinstance(error, DataError):
                raise
            got = f"one that cannot be read ({error})"
            raise DataError.at(str(path), name, "a dataset", got) from None

    with file:
        return gather(str(path), list(file), read)
