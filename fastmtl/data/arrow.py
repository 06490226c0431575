"""Data sets whose columns are lists: saved by Hugging Face `datasets`, or in Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from fastmtl.data.arrow_columns import ArrowRows, Columns, scalars
from fastmtl.data.budget import Budget
from fastmtl.data.dataset import MultiTaskData
from fastmtl.data.errors import DataError
from fastmtl.data.fields import Fields, gather, require_file
from fastmtl.data.joining import append_test
from fastmtl.data.rows import Array, Rows
from fastmtl.data.splits import IntArray

_AT_ONCE = 1000
_SPLITS = {"train": "train", "validation": "val", "val": "val", "test": "test"}
_DICT, _SINGLE = "dataset_dict.json", "dataset_info.json"


def is_arrow_directory(path: Path) -> bool:
    """Whether `datasets` saved a directory."""
    return path.is_dir() and any((path / name).is_file() for name in (_DICT, _SINGLE))


def load_arrow(
    path: str | Path,
    *,
    test: str | Path | None = None,
    seed: int = 0,
    for_training: bool = True,
    memory: str = "load",
) -> MultiTaskData:
    """Load what `save_to_disk` of a `datasets.Dataset` or `DatasetDict` wrote, or a Parquet file.

    The columns are the fields of an `.npz` (`load_npz`), a value a sample: `x` or `x_<modality>`
    lists of numbers, or lists of such lists for sequences, which may differ in length; `y` a list
    of T labels, or a struct with a label in each field, which names it. A null is a missing label,
    or a modality that the sample lacks. The splits of a `DatasetDict` are train, validation (or
    val) and test.

    Args:
        path: the directory, or the file.
        test: a second one of the same columns, whose samples are the test split.
        seed: as for `MultiTaskData.from_arrays`.
        for_training: as for `MultiTaskData.from_arrays`.
        memory: as for `load`; of a Parquet file no rows can be read.

    Raises:
        DataError: for what cannot be used, and where `datasets` or pyarrow is not installed.

    Examples:
        >>> load_arrow("clips", memory="stream")  # doctest: +SKIP
        MultiTaskData('clips', {'video': (40, 128)}, 7 tasks, 924 train, 308 val, 308 test)
    """
    fields = read_arrow(path, memory, joined=test is not None)
    if test is not None:
        fields = append_test(fields, read_arrow(test, memory, joined=True))
    return fields.finish(seed, for_training)


def holds_lists(path: Path) -> bool:
    """Whether a Parquet file has columns of lists; False where that cannot be told."""
    try:
        import pyarrow.parquet as pq

        return any(field.type.num_fields for field in pq.read_schema(path))
    # The readers raise whatever damage makes them stumble over.
    except Exception:
        return False


def read_arrow(path: str | Path, memory: str = "load", *, joined: bool = False) -> Fields:
    """The fields of a directory that `datasets` saved, or of a Parquet file; if they are to be
    `joined` with others, with lengths of all sequences."""
    path, source = Path(path), str(path)
    _need("datasets" if path.is_dir() else "pyarrow", source)
    try:
        columns, split = _open_directory(path) if path.is_dir() else (_open_file(path), None)
        return _gathered(columns, split, memory, in_file=path.is_dir(), joined=joined)
    except DataError:
        raise
    # The readers raise whatever damage makes them stumble over.
    except Exception as error:
        raise DataError.at(source, "file", "columns of Arrow", f"broken ones ({error})") from None


def _need(package: str, source: str) -> None:
    if find_spec(package) is None:
        raise DataError.at(source, "file", f"{package} (pip install {package}) to read it", "none")


def _gathered(
    columns: Columns, split: list[str] | None, memory: str, *, in_file: bool, joined: bool
) -> Fields:
    source = columns.source
    budget = Budget(source)
    features = {n: ArrowRows(columns, n) for n in columns.kinds if n == "x" or n[:2] == "x_"}
    given: dict[str, Array] = {}
    if split is not None:
        if "split" in columns.kinds:
            got = "both splits of a DatasetDict and a column"
            raise DataError.at(source, "split", "one of them", got)
        given["split"] = np.array(split)
    if names := _fields_of(columns, "y"):
        given["label_names"] = np.array(names)
    given |= {
        f"class_names_{name[2:]}": np.array(classes)
        for name, classes in columns.class_names.items()
        if name.startswith("y_")
    }
    for name, rows in features.items():
        own = "lengths" + name[1:]
        if rows.lengths is None or {own, "lengths"} & columns.kinds.keys():
            continue
        if joined or (rows.lengths < rows.shape[1]).any():
            given[own] = rows.lengths

    def read(name: str) -> Array:
        if name in given:
            return given[name]
        if name not in features:
            return _labels(columns, names) if name == "y" and names else scalars(columns, name)
        rows = features[name]
        copied = rows.dtype != np.float32
        budget.take_array(name, int(np.prod(rows.shape)), rows.dtype.itemsize, copied=copied)
        out = np.empty(rows.shape, rows.dtype)
        rows.read(np.arange(len(rows)), out)
        return out

    def rows_of(name: str) -> Rows | str:
        return features[name] if in_file else "a column of a Parquet file"

    fields = gather(source, [*columns.kinds, *given], read, rows_of, memory)
    ragged = {name.removeprefix("x_") for name, rows in features.items() if rows.ndim == 3}
    return replace(fields, ragged=frozenset(ragged))


def _fields_of(columns: Columns, name: str) -> list[str]:
    """The names of the fields of a column of structs; none of any other."""
    import pyarrow as pa

    kind = columns.kinds.get(name)
    if kind is None or not pa.types.is_struct(kind):
        return []
    return [kind.field(i).name for i in range(kind.num_fields)]


def _labels(columns: Columns, names: list[str]) -> Array:
    """The fields (N, T) of the structs `y`."""
    parts = [
        np.stack([part.field(n).to_numpy(zero_copy_only=False) for n in names], 1)
        for part in columns.parts("y")
    ]
    return np.concatenate(parts).astype(np.float64)


class _OfDataset(Columns):
    """The columns of a `datasets.Dataset`, which lie in its files."""

    def __init__(self, source: str, dataset: Any) -> None:
        kinds = {field.name: field.type for field in dataset.features.arrow_schema}
        named = {name: getattr(kind, "names", None) for name, kind in dataset.features.items()}
        class_names = {name: names for name, names in named.items() if names}
        super().__init__(source, len(dataset), kinds, class_names)
        whole = dataset.with_format("arrow")
        self._columns = {name: whole.select_columns([name]) for name in kinds}

    def parts(self, name: str) -> Iterator[Any]:
        for table in self._columns[name].iter(_AT_ONCE):
            yield _plain(table.column(name))

    def take(self, name: str, rows: IntArray) -> Any:
        return _plain(self._columns[name][rows.tolist()].column(name))


class _OfTable(Columns):
    """The columns of a table in memory."""

    def __init__(self, source: str, table: Any) -> None:
        kinds = {field.name: field.type for field in table.schema}
        super().__init__(source, table.num_rows, kinds, {})
        self._table = table

    def parts(self, name: str) -> Iterator[Any]:
        yield _plain(self._table.column(name))

    def take(self, name: str, rows: IntArray) -> Any:
        return _plain(self._table.column(name).take(rows))


def _plain(column: Any) -> Any:
    """One array, of the storage of a type that `datasets` adds to those of Arrow."""
    import pyarrow as pa

    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    return getattr(array, "storage", array)


def _open_directory(path: Path) -> tuple[Columns, list[str] | None]:
    """The columns of all splits one behind another, and the split of each sample, if it has any."""
    import datasets

    loaded = datasets.load_from_disk(str(path), keep_in_memory=False)
    if not isinstance(loaded, datasets.DatasetDict):
        return _OfDataset(str(path), loaded), None
    if unknown := [name for name in loaded if name not in _SPLITS]:
        expected = f"the splits {', '.join(_SPLITS)}"
        raise DataError.at(str(path), "split", expected, unknown[0])
    split = [_SPLITS[name] for name, part in loaded.items() for _ in range(len(part))]
    return _OfDataset(str(path), datasets.concatenate_datasets(list(loaded.values()))), split


def _open_file(path: Path) -> Columns:
    import pyarrow.parquet as pq

    with pq.ParquetFile(require_file(path)) as file:
        groups = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
        Budget(str(path), path).take("columns", sum(group.total_byte_size for group in groups))
        return _OfTable(str(path), file.read())
