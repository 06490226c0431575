"""Two files of one data set: the samples of the second are the test split."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from fastmtl.data.checks import check_strings
from fastmtl.data.errors import DataError
from fastmtl.data.fields import CLASSES_OF, LENGTHS_OF, NAMES_OF, Fields, Values
from fastmtl.data.provenance import check_encoders
from fastmtl.data.rows import Array, JoinedRows, Rows

_Values = TypeVar("_Values", Array, Values)


def append_test(train: Fields, test: Fields) -> Fields:
    """Both files' samples in one: those of `test` are the test split, whatever its own says."""
    names = [_names(fields) for fields in (train, test)]
    if names[0] != names[1]:
        got = "other ones, or another order"
        raise DataError.at(test.source, "label_names", f"those of {train.source}", got)
    pair = (train, test)
    check_encoders(test.source, test.encoders, train.encoders)
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
        sample_names=_join(pair, "sample_names", train.sample_names, test.sample_names),
        classes=_join_classes(train, test),
        class_names=_join_class_names(train, test),
        encoders=train.encoders,
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
        return {m: _joined(pair, m, train.x[m], test.x[m]) for m in train.x}
    if isinstance(train.x, dict) or isinstance(test.x, dict):
        expected = f"the modalities of {train.source}"
        raise DataError.at(
            test.source, "x", expected, "x in one file and x_<modality> in the other"
        )
    return _joined(pair, "x", train.x, test.x)


def _join_lengths(train: Fields, test: Fields) -> Array | dict[str, Array] | None:
    ours, theirs, pair = train.lengths, test.lengths, (train, test)
    if not isinstance(ours, dict) and not isinstance(theirs, dict):
        return _join(pair, "lengths", ours, theirs)
    ours, theirs = (each if isinstance(each, dict) else {} for each in (ours, theirs))
    joined = {
        m: _join(pair, LENGTHS_OF + m, ours.get(m), theirs.get(m)) for m in {**ours, **theirs}
    }
    return {m: value for m, value in joined.items() if value is not None}


def _join_classes(train: Fields, test: Fields) -> dict[str, Array]:
    joined: dict[str, Array] = {}
    for task in {**train.classes, **test.classes}:
        columns = (train.classes.get(task), test.classes.get(task))
        field = CLASSES_OF + task
        numbers = [each.dtype.kind in "fiub" for each in columns if each is not None]
        if len(set(numbers)) > 1:
            expected = f"{'numbers' if numbers[0] else 'names'} as in {train.source}"
            raise DataError.at(test.source, field, expected, "names" if numbers[0] else "numbers")
        column = _join((train, test), field, *columns)
        if column is not None:
            joined[task] = column
    return joined


def _join_class_names(train: Fields, test: Fields) -> dict[str, Array]:
    for task in train.class_names.keys() & test.class_names.keys():
        names = [
            check_strings(each.source, NAMES_OF + task, each.class_names[task])
            for each in (train, test)
        ]
        if names[0] != names[1]:
            got = "other ones, or another order"
            raise DataError.at(test.source, NAMES_OF + task, f"those of {train.source}", got)
    return {**test.class_names, **train.class_names}


def _joined(pair: tuple[Fields, Fields], name: str, train: Values, test: Values) -> Values:
    """One array behind the other; sequences without padding in their files may differ in L."""
    field = f"x_{name}" if isinstance(pair[0].x, dict) else name
    if not all(name in fields.ragged for fields in pair):
        _alike(pair, field, train, test)
    elif train.shape[2] != test.shape[2]:
        expected = f"{train.shape[2]} features as in {pair[0].source}"
        raise DataError.at(pair[1].source, field, expected, str(test.shape[2]))
    if isinstance(train, Rows) or isinstance(test, Rows):
        return JoinedRows(train, test)
    if train.shape[1:] == test.shape[1:]:
        return np.concatenate([train, test])
    joined = JoinedRows(train, test)
    out = np.empty(joined.shape, np.result_type(train, test))
    joined.read(np.arange(len(joined)), out)
    return out


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
