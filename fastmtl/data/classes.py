"""Labels of multi-class tasks: numbers or names in, the number of each sample's class out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastmtl._checks import did_you_mean
from fastmtl.data.checks import as_array, check_strings, repeated
from fastmtl.data.errors import DataError
from fastmtl.data.rows import Array
from fastmtl.data.splits import SPLITS, TRAIN, IntArray

# More than any task has; a column of other numbers, such as ids, has them.
MOST_CLASSES = 1 << 16
_SHOWN = 8


def check_classes(source: str, task: str, value: Any, names: Any) -> tuple[Tensor, list[str]]:
    """The number (N,) of each sample's class as float32, NaN where it is missing; and the classes.

    Numbers are those of the classes, from 0, with -1 or NaN for missing. Strings are their names,
    with "" for missing. Without `names` (C,) the classes are called by their numbers, or are the
    strings that occur, in order: by value if all are whole numbers.
    """
    field, array = f"y_{task}", as_array(value)
    if array.ndim != 1 or not len(array):
        expected = "a non-empty vector (N,), the class of each sample"
        raise DataError.at(source, field, expected, f"shape {array.shape}")
    given = None if names is None else _checked_names(source, task, names)
    if array.dtype.kind in "fiub":
        codes = _checked_numbers(source, field, array, given)
        found = _numerals(int(codes.max()) + 1) if given is None else given
    else:
        texts = _texts(source, field, array)
        found = _in_order(source, field, set(texts) - {""}) if given is None else given
        codes = _numbered(source, field, texts, found)
    labels = torch.from_numpy(np.where(codes < 0, np.nan, codes).astype(np.float32))
    return labels, found


def check_trainable_classes(
    source: str, task: str, labels: Tensor, split: IntArray, names: Sequence[str]
) -> tuple[str, ...]:
    """Raise unless the classes (N,) of a task can be learned; return a warning on unused ones."""
    field, codes = f"y_{task}", labels.numpy()
    present = ~np.isnan(codes)
    if not present.any():
        raise DataError.at(source, field, "at least one label", "only missing ones")
    train = set(codes[present & (split == TRAIN)].astype(int).tolist())
    if len(train) < 2:
        got = repr(names[min(train)]) + " alone" if train else "no label"
        raise DataError.at(source, field, "at least 2 classes in the training split", got)
    unseen = present & ~np.isin(codes, sorted(train))
    if unseen.any():
        row = int(np.flatnonzero(unseen)[0])
        got = f"{names[int(codes[row])]!r} at row {row} of {SPLITS[split[row]]}"
        expected = "classes that the training split has samples of"
        raise DataError.at(source, field, expected, got)
    unused = [repr(name) for i, name in enumerate(names) if i not in train]
    if not unused:
        return ()
    shown = ", ".join(unused[:_SHOWN]) + (", ..." if len(unused) > _SHOWN else "")
    return (f"{source}: the task {task!r} has no sample of {len(unused)} classes: {shown}",)


def recoded(
    source: str, task: str, labels: Tensor, names: Sequence[str], wanted: Sequence[str]
) -> Tensor:
    """The classes (N,) by their numbers in `wanted`; DataError for one that is not there.

    Numbers without names are those of `wanted`, unless these are numbers too.
    """
    if list(names) == list(wanted):
        return labels
    place = {name: i for i, name in enumerate(wanted)}
    if list(names) == _numerals(len(names)) and not place.keys() & set(names):
        place = {name: i for i, name in enumerate(_numerals(len(wanted)))}
    used = {int(code): names[int(code)] for code in labels[~labels.isnan()].unique()}
    if unknown := [name for name in used.values() if name not in place]:
        expected = f"the classes of the training data, {_listed(wanted)}"
        got = repr(unknown[0]) + did_you_mean(unknown[0], wanted)
        raise DataError.at(source, f"y_{task}", expected, got)
    out = labels.clone()
    for code, name in used.items():
        out[labels == code] = place[name]
    return out


def need_class_tasks(source: str, classes: Mapping[str, Any], names: Mapping[str, Any]) -> None:
    """Raise unless every task that classes are named of is there."""
    for task in names:
        if task not in classes:
            got = f"none, and class_names_{task}" if not classes else ", ".join(classes)
            raise DataError.at(source, f"class_names_{task}", f"a field y_{task} with it", got)


def _numerals(count: int) -> list[str]:
    """What classes without names are called."""
    return [str(number) for number in range(count)]


def _checked_names(source: str, task: str, value: Any) -> list[str]:
    field = f"class_names_{task}"
    names = check_strings(source, field, value)
    if (twice := repeated(names)) is not None:
        raise DataError.at(source, field, "distinct names", f"{twice!r} more than once")
    if "" in names:
        raise DataError.at(source, field, "names", "an empty one, which stands for missing")
    if len(names) < 2:
        raise DataError.at(source, field, "at least 2 classes", str(len(names)))
    return names


def _checked_numbers(source: str, field: str, array: Array, names: list[str] | None) -> IntArray:
    """Class numbers, -1 for missing."""
    values = np.where(np.isnan(array), -1, array) if array.dtype.kind == "f" else array
    most = MOST_CLASSES if names is None else len(names)
    good = (values >= -1) & (values < most) & (values == np.floor(values))
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        expected = f"classes from 0 to {most - 1}, or -1 for missing"
        raise DataError.at(source, field, expected, f"{array[row].item()!r} at row {row}")
    return values.astype(np.int64)


def _texts(source: str, field: str, array: Array) -> list[str]:
    if array.dtype.kind == "O":
        array = np.array(["" if each is None else each for each in array.tolist()], dtype=object)
    return check_strings(source, field, array)


def _in_order(source: str, field: str, names: set[str]) -> list[str]:
    """Sorted, numbers by their values."""
    if not all(name.isdecimal() and name.isascii() for name in names - {"-1"}):
        return sorted(names)
    if "-1" in names:
        raise DataError.at(source, field, "an empty string for a missing label", "'-1'")
    return sorted(names, key=lambda name: (int(name), name))


def _numbered(source: str, field: str, texts: Sequence[str], names: Sequence[str]) -> IntArray:
    place = {"": -1, **{name: i for i, name in enumerate(names)}}
    for row, text in enumerate(texts):
        if text not in place:
            got = f"{text!r} at row {row}" + did_you_mean(text, names)
            raise DataError.at(source, field, f"one of {_listed(names)}, or empty", got)
    return np.array([place[text] for text in texts], dtype=np.int64)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f", ... ({len(names)})" if len(names) > _SHOWN else "")
