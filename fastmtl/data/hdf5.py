"""Data sets in HDF5 files."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from fastmtl.data.budget import Budget
from fastmtl.data.dataset import MultiTaskData
from fastmtl.data.errors import DataError
from fastmtl.data.fields import Fields, gather, require_file
from fastmtl.data.hdf5_rows import reading, rows_of, slow_chunks
from fastmtl.data.heaps import check_heaps
from fastmtl.data.joining import append_test
from fastmtl.data.provenance import ATTRIBUTE, parse_encoders
from fastmtl.data.rows import Array, Rows

_MOST_HOPS = 16
_STRING_BYTES = 64  # of an empty one in Python
_STRINGS_AT_ONCE, _SMALL_FILE = 16, 64 << 20


def load_hdf5(
    path: str | Path,
    *,
    test: str | Path | None = None,
    seed: int = 0,
    for_training: bool = True,
    memory: str = "load",
) -> MultiTaskData:
    """Load an HDF5 file: the layout and arguments of `load_npz`, with datasets at the root.

    Strings may be of fixed or variable length.

    Args:
        path: the file.
        test: a second file of the same layout, whose samples are the test split.
        seed: as for `MultiTaskData.from_arrays`.
        for_training: as for `MultiTaskData.from_arrays`.
        memory: as for `load`.

    Raises:
        DataError: for a file that cannot be used.

    Examples:
        >>> import tempfile, h5py
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with h5py.File(folder + "/toy.h5", "w") as file:
        ...         file["x"] = np.random.rand(10, 4, 3)
        ...         file["y"] = np.arange(20).reshape(10, 2) % 2
        ...         file["label_names"] = ["flood", "fire"]
        ...     load_hdf5(folder + "/toy.h5").label_names
        ['flood', 'fire']
    """
    fields = read_hdf5(path, memory)
    if test is not None:
        fields = append_test(fields, read_hdf5(test, memory))
    return fields.finish(seed, for_training)


def read_hdf5(path: str | Path, memory: str = "load") -> Fields:
    """The fields of an HDF5 file, of which everything lies in the file itself."""
    import h5py

    path = require_file(path)
    budget = Budget(str(path), path)
    # HDF5 raises whatever damage makes it stumble over.
    try:
        file = h5py.File(path, "r")
        names = list(file)
    except Exception as error:
        got = f"something else, or a file cut short ({error})"
        raise DataError.at(str(path), "file", "an HDF5 file", got) from None

    def read(name: str) -> Array:
        with reading(str(path), name):
            return _read_dataset(_find(file, name), name, budget)

    def rows(name: str) -> Rows | str:
        with reading(str(path), name):
            return rows_of(path, _find(file, name), name)

    with file:
        fields = gather(str(path), names, read, rows, memory)
        with reading(str(path), ATTRIBUTE):
            said = file.attrs.get(ATTRIBUTE)
        if said is not None:
            fields.encoders = parse_encoders(str(path), said)
    features = fields.x.values() if isinstance(fields.x, dict) else [fields.x]
    slow = [slow_chunks(x) for x in features if isinstance(x, Rows)]
    return replace(fields, warnings=fields.warnings + tuple(filter(None, slow)))


def _find(group: Any, path: str, hops: int = 0) -> Any:
    """The object at a path below a group, by links inside the file alone: others are not opened."""
    import h5py

    parts = [part for part in path.split("/") if part not in ("", ".")]
    for i, part in enumerate(parts):
        link = group.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise ValueError(f"it is a link to another file, {link.filename!r}")
        if isinstance(link, h5py.SoftLink):
            if hops == _MOST_HOPS:
                raise ValueError("its links go in a circle")
            start = group.file["/"] if link.path.startswith("/") else group
            return _find(start, "/".join([link.path, *parts[i + 1 :]]), hops + 1)
        group = group[part]
    return group


def _read_dataset(node: Any, name: str, budget: Budget) -> Array:
    import h5py

    def refuse(expected: str, got: str) -> NoReturn:
        raise DataError.at(budget.source, name, expected, got)

    if not isinstance(node, h5py.Dataset):
        refuse("a dataset", f"an HDF5 {type(node).__name__}")
    if node.external or node.is_virtual:
        refuse("values in the file itself", "a dataset whose values are in other files")
    if node.chunks is not None:
        # A chunk is unpacked as a whole, and may be larger than the dataset.
        budget.take(name, math.prod(node.chunks) * node.dtype.itemsize)
    count = int(node.size or 0)
    if not node.dtype.hasobject:
        budget.take_array(name, count, node.dtype.itemsize, copied=node.dtype != np.float32)
        return np.asarray(node[()])
    if h5py.check_string_dtype(node.dtype) is None or node.ndim != 1:
        refuse("numbers or a vector of strings", f"{node.dtype} of shape {node.shape}")
    check_heaps(Path(node.file.filename))
    budget.take_array(name, count, _STRING_BYTES)
    strings: list[bytes] = []
    # Any number of them may be the same few bytes of the file: so in parts.
    rows = max(_STRINGS_AT_ONCE, _SMALL_FILE // os.path.getsize(node.file.filename))
    for start in range(0, count, rows):
        part = node[start : start + rows].tolist()
        budget.take(name, sum(map(len, part)))
        strings += part
    return np.array(strings, dtype=object)
