"""The samples of an HDF5 data file on their way to it: checked, then appended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastmtl._checks import did_you_mean
from fastmtl.data.checks import as_array, check_strings
from fastmtl.data.errors import DataError
from fastmtl.data.growing import Growing, GrowingFile
from fastmtl.data.rows import Array
from fastmtl.data.splits import SPLITS

# (D,) of a vector, (L, D) of a padded sequence, (None, D) of one that is stored as long as it is.
Shape = tuple[int] | tuple[int | None, int]
_LABEL_DTYPE = "f2"  # holds 0, 1 and NaN


def field_of(kind: str, modality: str) -> str:
    """The name of a field of one modality; "x" is the single one.

    Examples:
        >>> field_of("offsets", "video"), field_of("offsets", "x")
        ('offsets_video', 'offsets')
    """
    return kind if modality == "x" else f"{kind}_{modality}"


class H5Writer:
    """What `h5_writer` gives: `add` appends a sample."""

    def __init__(
        self,
        file: GrowingFile,
        source: str,
        shapes: Mapping[str, Shape],
        label_names: list[str],
        class_names: dict[str, list[str]],
        dtype: str,
    ) -> None:
        self.source = source
        self.shapes = dict(shapes)
        self.label_names = label_names
        self.class_names = class_names
        self._file = file.h5
        self._count = 0
        self._features = {
            modality: Growing(
                file, field_of("x", modality), tuple(n for n in shape if n is not None), dtype
            )
            for modality, shape in self.shapes.items()
        }
        tasks = len(label_names)
        self._labels = Growing(file, "y", (tasks,), _LABEL_DTYPE) if tasks else None
        self._classes = {task: Growing(file, f"y_{task}", (), "i4") for task in class_names}
        self._steps: dict[str, list[int]] = {m: [] for m, s in self.shapes.items() if len(s) == 2}
        # What a sample may have besides, if all have it.
        self._besides: dict[str, list[str | int]] = {"split": [], "group": [], "sample_names": []}

    def __len__(self) -> int:
        return self._count

    def add(
        self,
        x: Mapping[str, Any],
        *,
        y: Any = None,
        classes: Mapping[str, str | int | None] | None = None,
        split: str | None = None,
        group: str | int | None = None,
        name: str | None = None,
    ) -> None:
        """Append a sample.

        Args:
            x: its features by modality; of a sequence as many steps as it has. None, or a modality
                left out, for one that the sample lacks: it is written as NaN.
            y: its T labels: 0, 1, and NaN or None for missing.
            classes: its class by task, a name or an index; None, or a task left out, for missing.
            split: train, val or test.
            group: an integer or a name.
            name: what the sample is called. As `split` and `group` in all samples or in none.

        Raises:
            DataError: naming the sample by its row, and `name`; none of it is written then.
        """
        row = f"row {self._count}" + (f" ({name})" if name is not None else "")
        self._known(row, "x", x, self.shapes)
        self._known(row, "classes", classes or {}, self.class_names)
        features = {m: self._check_features(row, m, x.get(m)) for m in self.shapes}
        labels = self._check_labels(row, y)
        indices = {t: self._check_class(row, t, (classes or {}).get(t)) for t in self.class_names}
        besides = {"split": split, "group": group, "sample_names": name}
        for field, value in besides.items():
            self._check_besides(row, field, value)
        for modality, values in features.items():
            self._put(modality, values)
        if self._labels is not None:
            self._labels.add(labels[None])
        for task, index in indices.items():
            self._classes[task].add(np.array([index]))
        for field, value in besides.items():
            if value is not None:
                self._besides[field].append(value)
        self._count += 1

    def finish(self) -> None:
        """Write what waits, and the fields that were kept."""
        if not self._count:
            raise DataError.at(self.source, "samples", "at least one", "none")
        labels = [] if self._labels is None else [self._labels]
        for column in (*self._features.values(), *labels, *self._classes.values()):
            column.flush()
        for modality, steps in self._steps.items():
            if self.shapes[modality][0] is None:
                self._file[field_of("offsets", modality)] = np.cumsum([0, *steps], dtype=np.int64)
            else:
                self._file[field_of("lengths", modality)] = np.array(steps, np.int64)
        if self.label_names:
            self._file["label_names"] = _strings(self.label_names)
        for task, names in self.class_names.items():
            self._file[f"class_names_{task}"] = _strings(names)
        for field, values in self._besides.items():
            if values:
                integers = isinstance(values[0], int)
                self._file[field] = np.array(values, np.int64) if integers else _strings(values)

    def _put(self, modality: str, values: Array) -> None:
        shape = self.shapes[modality]
        if len(shape) == 2:
            self._steps[modality].append(len(values))
        if len(shape) == 2 and shape[0] is not None:
            padded = np.zeros((1, *self._features[modality].shape), values.dtype)
            padded[0, : len(values)] = values
            values = padded
        self._features[modality].add(values if len(shape) == 2 else values[None])

    def _check_features(self, row: str, modality: str, value: Any) -> Array:
        """Those of one modality in the file's dtype, of a sequence its steps (L, D)."""
        shape, dtype = self.shapes[modality], self._features[modality].dtype
        field = f"{field_of('x', modality)} of {row}"
        if value is None:
            if dtype.kind != "f":
                raise DataError.at(self.source, field, f"features, stored as {dtype}", "none")
            width = self._features[modality].shape[-1]
            return np.full((1, width) if len(shape) == 2 else width, np.nan, dtype)
        array, most = as_array(value), shape[0] if len(shape) == 2 else None
        fits = array.ndim == len(shape) and array.shape[-1] == shape[-1] and len(array) > 0
        if array.dtype.kind not in "fiub" or not fits or (most is not None and len(array) > most):
            steps = f"(1 to {most or 'any number'}, {shape[-1]})" if len(shape) == 2 else str(shape)
            got = f"{array.dtype} of shape {array.shape}"
            raise DataError.at(self.source, field, f"numbers of shape {steps}", got)
        with np.errstate(over="ignore", invalid="ignore"):
            stored = array.astype(dtype)
        bad = ~np.isfinite(stored) if dtype.kind == "f" else stored != array
        if bad.any() and not np.isnan(stored).all():
            place = tuple(np.argwhere(bad)[0].tolist())
            got = f"{array[place].item()!r} at {', '.join(map(str, place))}"
            expected = f"finite numbers that fit {dtype}, or NaN alone for a missing modality"
            raise DataError.at(self.source, field, expected, got)
        return stored

    def _check_labels(self, row: str, value: Any) -> Array:
        if value is None and not self.label_names:
            return np.empty(0)
        if isinstance(value, np.ndarray):
            labels: Array = value
        else:
            given = () if value is None else value
            labels = np.array([np.nan if each is None else each for each in given])
        good = labels.dtype.kind in "fiub" and labels.shape == (len(self.label_names),)
        if not good or not ((labels == 0) | (labels == 1) | np.isnan(labels)).all():
            expected = f"{len(self.label_names)} of 0, 1, NaN or None (missing)"
            raise DataError.at(self.source, f"y of {row}", expected, repr(value))
        return labels

    def _check_class(self, row: str, task: str, value: str | int | None) -> int:
        names = self.class_names[task]
        if value is None:
            return -1
        if isinstance(value, str) and value in names:
            return names.index(value)
        if isinstance(value, int | np.integer) and 0 <= value < len(names):
            return int(value)
        expected = f"one of {', '.join(names)}, or 0 to {len(names) - 1}"
        got = repr(value) + (did_you_mean(value, names) if isinstance(value, str) else "")
        raise DataError.at(self.source, f"{task} of {row}", expected, got)

    def _check_besides(self, row: str, field: str, value: Any) -> None:
        kept = self._besides[field]
        if self._count and (value is None) == bool(kept):
            expected = f"{field} in all samples or in none"
            raise DataError.at(self.source, row, expected, "other" if value is None else "some")
        if value is None:
            return
        if field == "split" and value not in SPLITS:
            raise DataError.at(self.source, f"split of {row}", "train, val or test", repr(value))
        kinds: tuple[type, ...] = (str, int) if field == "group" else (str,)
        kind = type(kept[0]) if kept else type(value)
        if not isinstance(value, kinds) or not isinstance(value, kind):
            expected = f"{' or '.join(k.__name__ for k in kinds)}, of one type in all samples"
            raise DataError.at(self.source, f"{field} of {row}", expected, repr(value))
        if isinstance(value, str):
            check_strings(self.source, f"{field} of {row}", np.array([value], object))

    def _known(self, row: str, field: str, given: Mapping[str, Any], known: Any) -> None:
        for name in given:
            if name not in known:
                expected = f"any of {', '.join(known) or 'none'}"
                got = repr(name) + did_you_mean(name, known)
                raise DataError.at(self.source, f"{field} of {row}", expected, got)


def _strings(values: Any) -> Array:
    """Of fixed length: those of variable length have HDF5 look through the whole file for heaps."""
    return np.array([value.encode() for value in values])
