"""The named arrays of a data file, as its reader found them, on their way to a MultiTaskData."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fastmtl.data.dataset import MultiTaskData
from fastmtl.data.errors import DataError
from fastmtl.data.placement import place
from fastmtl.data.provenance import Encoders
from fastmtl.data.ragged import RaggedRows, check_offsets, pad
from fastmtl.data.rows import Array, Rows
from fastmtl.data.splits import IntArray

Values = Array | Rows
LENGTHS_OF = "lengths_"
CLASSES_OF, NAMES_OF = "y_", "class_names_"
_KNOWN = ("x", "y", "lengths", "label_names", "split", "group", "sample_names")


@dataclass
class Fields:
    """Unchecked arrays: `x` an array or a dict of them by modality, the others as in the file.

    Features may be `Rows` that stay in the file. `ragged` are the modalities ("x" for a single one)
    that came without padding. `classes` and `class_names` are by task.
    """

    source: str
    x: Values | dict[str, Values]
    y: Array | None = None
    lengths: Array | dict[str, Array] | None = None
    label_names: Any = None
    split: Array | None = None
    group: Array | None = None
    sample_names: Array | None = None
    encoders: Encoders | None = None
    warnings: tuple[str, ...] = ()
    ragged: frozenset[str] = frozenset()
    classes: dict[str, Array] = field(default_factory=dict)
    class_names: dict[str, Array] = field(default_factory=dict)

    def finish(self, seed: int, for_training: bool, name: str | None = None) -> MultiTaskData:
        """Check everything and build the data set."""
        if self.y is None and not self.classes and for_training:
            raise DataError.at(self.source, "y", "labels (N, T)", "a file without the field")
        data = MultiTaskData.from_arrays(
            self.x,
            self.y,
            lengths=self.lengths,
            label_names=None if self.y is None else self.label_names,
            # In whatever order a format lists its fields.
            classes=dict(sorted(self.classes.items())),
            class_names=self.class_names,
            split=self.split,
            group=self.group,
            sample_names=self.sample_names,
            name=self.source,
            seed=seed,
            for_training=for_training,
        )
        name = name or Path(self.source).stem
        warnings = self.warnings + data.warnings
        return replace(data, name=name, encoders=self.encoders, warnings=warnings)


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
    of_one = [n for n in names if n.startswith(LENGTHS_OF)]
    ragged = [n for n in names if n == "offsets" or n.startswith("offsets_")]
    if "lengths" in names and (others := of_one + ragged):
        expected = "only one of lengths, lengths_<modality> and offsets"
        raise DataError.at(source, "lengths", expected, f"both lengths and {others[0]}")
    of_classes = [n for n in names if n.startswith((CLASSES_OF, NAMES_OF))]
    known = (*_KNOWN, *modalities, *of_one, *ragged, *of_classes)
    unknown = [n for n in names if n not in known]
    fields: dict[str, Any] = {n: read(n) for n in _KNOWN[1:] if n in names}
    for name, prefix in (("classes", CLASSES_OF), ("class_names", NAMES_OF)):
        fields[name] = {n.removeprefix(prefix): read(n) for n in of_classes if n.startswith(prefix)}
    if of_one:
        fields["lengths"] = {n.removeprefix(LENGTHS_OF): read(n) for n in of_one}
    offsets = {"x" + n.removeprefix("offsets"): check_offsets(source, n, read(n)) for n in ragged}
    if offsets:
        fields["lengths"] = _ragged_lengths(source, offsets, names, fields.get("lengths", {}))
    x = _features(source, modalities or ["x"], read, rows, memory, offsets)
    return Fields(
        source=source,
        x={n[2:]: x[n] for n in modalities} if modalities else x["x"],
        warnings=tuple(f"{source}: the field {n!r} is unknown and was not read" for n in unknown),
        ragged=frozenset(name.removeprefix("x_") for name in offsets),
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
            got = f"both {field} and {LENGTHS_OF}{modality}"
            raise DataError.at(source, field, "either offsets or lengths of a modality", got)
    if "x" in offsets:
        return np.diff(offsets["x"])
    return {**given, **{name[2:]: np.diff(each) for name, each in offsets.items()}}
