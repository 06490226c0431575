"""Flat features in tables: CSV files, and Parquet files by pyarrow."""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from fastmtl.data.budget import Budget
from fastmtl.data.checks import repeated
from fastmtl.data.dataset import MultiTaskData
from fastmtl.data.errors import DataError
from fastmtl.data.fields import Fields, require_file
from fastmtl.data.joining import append_test
from fastmtl.data.rows import Array

_LABEL, _CLASS, _OTHERS = "y_", "class_", ("split", "group", "sample_names")


def load_table(
    path: str | Path, *, test: str | Path | None = None, seed: int = 0, for_training: bool = True
) -> MultiTaskData:
    """Load a table with a row a sample: a `.csv` with a header, or a `.parquet` (needs pyarrow).

    The columns `y_<label>` are the labels, 0, 1, or empty for missing, and `class_<task>` the class
    of each sample in a multi-class task, a name or number, or empty; `split` is train, val or test,
    `group` an integer or a name, and `sample_names` what samples are called, all optional; every
    other column is a feature, a number.

    Args:
        path: the file.
        test: a second file of the same columns, in any order, whose samples are the test split.
        seed: as for `MultiTaskData.from_arrays`.
        for_training: as for `MultiTaskData.from_arrays`.

    Raises:
        DataError: for a file that cannot be used, and for a `.parquet` without pyarrow.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     text = "red,blue,y_sea\\n" + "0.1,.9,1\\n.5,.2,0\\n" * 5
        ...     _ = Path(folder, "toy.csv").write_text(text)
        ...     load_table(folder + "/toy.csv")
        MultiTaskData('toy', {'x': (2,)}, 1 tasks, 6 train, 2 val, 2 test)
    """
    table = _read(path, None)
    fields = table.fields()
    if test is not None:
        fields = append_test(fields, _read(test, table.features).fields())
    return fields.finish(seed, for_training)


class _Table:
    """The columns of a table by what they are, and what has been read of them.

    Args:
        source: the file.
        names: of its columns.
        like: the features in the order that is wanted; None for that of the file.
    """

    def __init__(self, source: str, names: Sequence[str], like: list[str] | None) -> None:
        self.source = source
        if (twice := repeated(names)) is not None:
            got = f"{twice!r} more than once"
            raise DataError.at(source, "columns", "distinct names", got)
        self.labels = [name for name in names if name.startswith(_LABEL)]
        self.classes = [name for name in names if name.startswith(_CLASS)]
        apart = (*self.labels, *self.classes, *_OTHERS)
        self.features = [name for name in names if name not in apart]
        if not self.features:
            expected = "features besides labels, split, group and names"
            raise DataError.at(source, "columns", expected, "none")
        if like is not None:
            if differing := sorted(set(like) ^ set(self.features)):
                got = f"{differing[0]!r} in one of them only"
                raise DataError.at(source, "columns", "the features of the first file", got)
            self.features = like
        self.position = {name: i for i, name in enumerate(names)}
        self.x, self.y = array("f"), array("f")
        texts = (*_OTHERS, *self.classes)
        self.others: dict[str, list[Any]] = {n: [] for n in texts if n in self.position}

    def fields(self) -> Fields:
        """What was read."""
        count = len(self.x) // len(self.features)
        if not count:
            raise DataError.at(self.source, "rows", "at least one", "none")
        y = np.array(self.y, np.float32).reshape(count, -1) if self.labels else None
        names = np.array([name.removeprefix(_LABEL) for name in self.labels])
        return Fields(
            self.source,
            np.array(self.x, np.float32).reshape(count, -1),
            y,
            label_names=names if self.labels else None,
            split=self._other("split"),
            group=self._other("group"),
            sample_names=self._other("sample_names"),
            classes={name.removeprefix(_CLASS): self._texts(name) for name in self.classes},
        )

    def _other(self, name: str) -> Array | None:
        return np.array(self.others[name]) if name in self.others else None

    def _texts(self, name: str) -> Array:
        """A column as it reads in a CSV file, empty where it has nothing."""
        values = ("" if value is None else str(value) for value in self.others[name])
        return np.array(list(values), dtype=object)


def _read(path: str | Path, like: list[str] | None) -> _Table:
    path = require_file(path)
    read = _read_parquet if path.suffix.lower() == ".parquet" else _read_csv
    try:
        return read(path, like)
    except DataError:
        raise
    # The readers raise whatever damage makes them stumble over.
    except Exception as error:
        raise DataError.at(str(path), "file", "a table", f"a broken one ({error})") from None


def _read_csv(path: Path, like: list[str] | None) -> _Table:
    source, budget = str(path), Budget(str(path), path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, strict=True)
        names = [name.strip() for name in next(lines, [])]
        table = _Table(source, names, like)
        for row in lines:
            if not row:
                continue
            if len(row) != len(names):
                got = f"{len(row)} in line {lines.line_num}"
                raise DataError.at(source, "rows", f"{len(names)} cells", got)
            # As it is read, in one array, and as the tensor that becomes of it.
            budget.take("rows", 12 * len(row))
            place = f"in line {lines.line_num}"
            table.x.extend(_numbers(table, row, table.features, place))
            table.y.extend(_numbers(table, row, table.labels, place, gap=math.nan))
            for name, values in table.others.items():
                values.append(row[table.position[name]].strip())
    return table


def _numbers(
    table: _Table, row: list[str], names: list[str], place: str, gap: float | None = None
) -> list[float]:
    """Some cells of a row; `gap` is what an empty one stands for."""
    out = []
    for name in names:
        cell = row[table.position[name]].strip()
        try:
            out.append(gap if gap is not None and not cell else float(cell))
        except ValueError:
            got = f"{cell!r} {place}" if cell else f"an empty cell {place}"
            raise DataError.at(table.source, name, "a number", got) from None
    return out


def _read_parquet(path: Path, like: list[str] | None) -> _Table:
    source = str(path)
    if find_spec("pyarrow") is None:
        raise DataError.at(source, "file", "pyarrow (pip install pyarrow) to read it", "none")
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        table = _Table(source, file.schema_arrow.names, like)
        Budget(source, path).take("rows", 12 * file.metadata.num_rows * len(table.position))
        for batch in file.iter_batches():
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            for name in (*table.features, *table.labels):
                kind = columns[name].type
                if not (
                    pa.types.is_integer(kind)
                    or pa.types.is_floating(kind)
                    or pa.types.is_boolean(kind)
                ):
                    raise DataError.at(source, name, "numbers", str(kind))
                if name in table.features and columns[name].null_count:
                    raise DataError.at(source, name, "features without gaps", "nulls")
            for names, out in ((table.features, table.x), (table.labels, table.y)):
                if names:
                    parts = [
                        columns[n].cast(pa.float64()).to_numpy(zero_copy_only=False) for n in names
                    ]
                    out.frombytes(np.stack(parts, 1).astype(np.float32).tobytes())
            for name, values in table.others.items():
                values += columns[name].to_pylist()
    return table
