"""The named arrays of a data file, as its reader found them, on their way to a MultiTaskData."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fastmtl.data.checks import check_strings
from fastmtl.data.dataset import MultiTaskData
from fastmtl.data.errors import DataError
from fastmtl.data.placement import place
from fastmtl.data.ragged import RaggedRows, check_offsets, pad
from fastmtl.data.rows import Array, JoinedRows, Rows
from fastmtl.data.splits import IntArray

Values = Array | Rows
_Values = TypeVar("_Values", Array, Values)
_OF_ONE = "lengths_"
_KNOWN = ("x", "y", "lengths", "label_names", "split", "group")


@dataclass
class Fields:
    """Unchecked arrays: `x` an array or a dict of them by modality, the others as in the file.

    Features may be `Rows` that stay in the file.
    """

    source: str
    x: Values | dict[str, Values]
    y: Array | None = None
    lengths: Array | dict[str, Array] | None = None
    label_names: Any = None
    split: Array | None = None
    group: Array | None = None
    warnings: tuple[str, ...] = ()

    def finish(self, seed: int, for_training: bool, name: str | None = None) -> MultiTaskData:
        """Check everything and build the data set."""
        if self.y is None and for_training:
            raise DataError.at(self.source, "y", "labels (N, T)", "a file without the field")
        data = MultiTaskData.from_arrays(
            self.x,
            self.y,
            lengths=self.lengths,
            label_names=None if self.y is None else self.label_names,
            split=self.split,
            group=self.group,
            name=self.source,
            seed=seed,
            for_training=for_training,
        )
        name = name or Path(self.source).stem
        return replace(data, name=name, warnings=self.warnings + data.warnings)


def require_file(path: str | Path) -> Path:
    """The path, if a file with something in it is there."""
    path = Path(path)
    if path.is_dir():
        raise DataError.at(str(path), "file", "a file", "a directory")
    if not path.exists():
        raise DataError.at(str(path), "file", "an existing file", "a path where nothing is")
    if not path.is_file():
        raise DataError.at(str(path), "file", "a file", "a pipe, socket or device")
    try:
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except OSError as error:
        raise DataError.at(str(path), "file", "a readable file", str(error)) from None
    if size == 0:
        raise DataError.at(str(path), "file", "data", "an empty file")
    return path


def gather(
    source: str,
    names: Iterable[str],
    read: Callable[[str], Array],
    rows: Callable[[str], Rows | str],
    memory: str,
) -> Fields:
    """The fields of a file that holds the arrays `names`, each fetched by `read`, and the features
    by `place`."""
    names = list(names)
    modalities = [n for n in names if n.startswith("x_") and len(n) > 2]
    if "x" in names and modalities:
        got = f"both x and {modalities[0]}"
        raise DataError.at(source, "x", "either x or x_<modality> arrays", got)
    if "x" not in names and not modalities:
        got = "the fields " + (", ".join(names) or "(none)")
        raise DataError.at(source, "x", "features in x or x_<modality>", got)
    of_one = [n for n in names if n.startswith(_OF_ONE)]
    ragged = [n for n in names if n == "offsets" or n.startswith("offsets_")]
    if "lengths" in names and (others := of_one + ragged):
        expected = "only one of lengths, lengths_<modality> and offsets"
        raise DataError.at(source, "lengths", expected, f"both lengths and {others[0]}")
    unknown = [n for n in names if n not in _KNOWN and n not in (*modalities, *of_one, *ragged)]
    fields: dict[str, Any] = {n: read(n) for n in _KNOWN[1:] if n in names}
    if of_one:
        fields["lengths"] = {n.removeprefix(_OF_ONE): read(n) for n in of_one}
    offsets = {"x" + n.removeprefix("offsets"): check_offsets(source, n, read(n)) for n in ragged}
    if offsets:
        fields["lengths"] = _ragged_lengths(source, offsets, names, fields.get("lengths", {}))
    x = _features(source, modalities or ["x"], read, rows, memory, offsets)
    return Fields(
        source=source,
        x={n[2:]: x[n] for n in modalities} if modalities else x["x"],
        warnings=tuple(f"{source}: the field {n!r} is unknown and was not read" for n in unknown),
        **fields,
    )


def _features(
    source: str,
    names: list[str],
    read: Callable[[str], Array],
    rows: Callable[[str], Rows | str],
    memory: str,
    offsets: Mapping[str, IntArray],
) -> dict[str, Values]:
    """The features in memory or in their file, those with offsets as sequences."""

    def read_whole(name: str) -> Array:
        array = read(name)
        return pad(source, name, array, offsets[name]) if name in offsets else array

    def read_rows(name: str) -> Rows | str:
        found = rows(name)
        if name not in offsets or isinstance(found, str):
            return found
        return RaggedRows(found, offsets[name])

    return place(source, memory, names, read_whole, read_rows)


def _ragged_lengths(
    source: str, offsets: Mapping[str, IntArray], names: list[str], given: dict[str, Array]
) -> Array | dict[str, Array]:
    """The lengths of sequences with offsets, beside those that are given of others."""
    for name in offsets:
        field, modality = f"offsets{name[1:]}", name[2:]
        if name not in names:
            there = ", ".join(n for n in names if n == "x" or n.startswith("x_"))
            raise DataError.at(source, field, f"those of one of {there}", f"those of {name}")
        if modality in given:
            got = f"both {field} and {_OF_ONE}{modality}"
            raise DataError.at(source, field, "either offsets or lengths of a modality", got)
    if "x" in offsets:
        return np.diff(offsets["x"])
    return {**given, **{name[2:]: np.diff(each) for name, each in offsets.items()}}


def append_test(train: Fields, test: Fields) -> Fields:
    """Both files' samples in one: those of `test` are the test split, whatever its own says."""
    names = [_names(fields) for fields in (train, test)]
    if names[0] != names[1]:
        got = "other ones, or another order"
        raise DataError.at(test.source, "label_names", f"those of {train.source}", got)
    pair = (train, test)
    x = _join_features(train, test)
    split = ["train"] * _num_rows(train)
    if train.split is not None:
        split = check_strings(train.source, "split", train.split)
    if "test" in split:
        got = f"some, and {test.source} as the test file too"
        raise DataError.at(train.source, "split", "no test samples", got)
    return Fields(
        source=train.source,
        x=x,
        y=_join(pair, "y", train.y, test.y),
        lengths=_join_lengths(train, test),
        label_names=train.label_names,
        split=np.array(split + ["test"] * _num_rows(test)),
        group=_join(pair, "group", train.group, test.group),
        warnings=train.warnings + test.warnings,
    )


def _names(fields: Fields) -> list[str] | None:
    if fields.label_names is None:
        return None
    return check_strings(fields.source, "label_names", fields.label_names)


def _num_rows(fields: Fields) -> int:
    return len(next(iter(fields.x.values())) if isinstance(fields.x, dict) else fields.x)


def _join_features(train: Fields, test: Fields) -> Values | dict[str, Values]:
    pair = (train, test)
    if isinstance(train.x, dict) and isinstance(test.x, dict):
        if set(train.x) != set(test.x):
            expected = f"the modalities of {train.source}: {', '.join(train.x)}"
            raise DataError.at(test.source, "x", expected, ", ".join(test.x))
        return {m: _joined(*_alike(pair, f"x_{m}", train.x[m], test.x[m])) for m in train.x}
    if isinstance(train.x, dict) or isinstance(test.x, dict):
        expected = f"the modalities of {train.source}"
        raise DataError.at(
            test.source, "x", expected, "x in one file and x_<modality> in the other"
        )
    return _joined(*_alike(pair, "x", train.x, test.x))


def _join_lengths(train: Fields, test: Fields) -> Array | dict[str, Array] | None:
    ours, theirs, pair = train.lengths, test.lengths, (train, test)
    if not isinstance(ours, dict) and not isinstance(theirs, dict):
        return _join(pair, "lengths", ours, theirs)
    ours, theirs = (each if isinstance(each, dict) else {} for each in (ours, theirs))
    joined = {m: _join(pair, _OF_ONE + m, ours.get(m), theirs.get(m)) for m in {**ours, **theirs}}
    return {m: value for m, value in joined.items() if value is not None}


def _joined(train: Values, test: Values) -> Values:
    if isinstance(train, Rows) or isinstance(test, Rows):
        return JoinedRows(train, test)
    return np.concatenate([train, test])


def _join(
    pair: tuple[Fields, Fields], field: str, train: Array | None, test: Array | None
) -> Array | None:
    if train is None and test is None:
        return None
    if train is None or test is None:
        got = f"it in {(pair[0] if test is None else pair[1]).source} only"
        raise DataError.at(pair[1].source, field, "the field in both files or in none", got)
    return np.concatenate(_alike(pair, field, train, test))


def _alike(
    pair: tuple[Fields, Fields], field: str, train: _Values, test: _Values
) -> tuple[_Values, _Values]:
    if train.ndim == 0 or train.shape[1:] != test.shape[1:] or train.ndim != test.ndim:
        expected = f"the shape of {pair[0].source} besides the rows, {train.shape}"
        raise DataError.at(pair[1].source, field, expected, f"{test.shape}")
    return train, test
