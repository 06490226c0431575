"""NUS-WIDE-OBJECT: low-level features of photographs, and a file of labels a concept.

Features are tables of numbers separated by spaces, a row an image, in files of a kind and a part
(`Train_Normalized_CH.dat`, `Normalized_CH_Test.dat`); labels files of 0 and 1 by concept and part
(`Labels_bear_Train.txt`, `Train_Labels_bear.txt`). Rows of one part are in the same order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fastmtl.data import DataError, h5_writer
from fastmtl.data.fields import require_file
from fastmtl.data.h5_samples import Shape
from fastmtl.data.rows import Array

_PARTS = ("train", "test")
_KINDS = ("CH", "CORR", "EDH", "WT", "CM55", "BoW_int", "BoW", "Tags1k", "Tags81")
_FEATURES = re.compile(
    rf"(?:(Train|Test)_)?(?:Normalized_|Norm_)?({'|'.join(_KINDS)})(?:_(Train|Test))?\.(?:dat|txt)",
    re.IGNORECASE,
)
_LABELS = re.compile(
    r"(?:(Train|Test)_)?Labels_(.+?)(?:_(Train|Test))?\.(?:txt|dat)", re.IGNORECASE
)
_Files = dict[str, dict[str, Path]]  # by part, then by name


def convert(
    source: Path, out: Path, *, dtype: str = "float32", overwrite: bool = False
) -> list[str]:
    """Write features by kind and labels by concept to an .h5.

    Args:
        source: the directory of the data, its files in it or further below.
        out: the file to write. Its modalities are the kinds of features, in lower case.
        dtype: of the features: float32 or float16.
        overwrite: whether `out` may be replaced.

    Raises:
        DataError: for files that are not there, or are of another layout.
    """
    features, labels = _find(source, _FEATURES), _find(source, _LABELS)
    kinds, concepts = _same(source, "features", features), _same(source, "labels", labels)
    parts = [part for part in _PARTS if part in features]
    if set(labels) != set(features):
        got = f"{', '.join(labels)} beside features of {', '.join(features)}"
        raise DataError.at(str(source), "labels", "labels of the same parts", got)
    shapes: dict[str, Shape] = {kind: (_width(features[parts[0]][kind]),) for kind in kinds}
    counts = dict.fromkeys(parts, 0)
    with h5_writer(out, shapes, label_names=concepts, dtype=dtype, overwrite=overwrite) as writer:
        for part in parts:
            for x, y in _rows(features[part], labels[part], kinds, concepts):
                writer.add(x, y=y, split=part)
                counts[part] += 1
    told = ", ".join(f"{count:,} {part}" for part, count in counts.items())
    return [f"{told} images, {len(kinds)} kinds of features, {len(concepts)} concepts"]


def _find(source: Path, pattern: re.Pattern[str]) -> _Files:
    """The files of a pattern, by part and then by name."""
    found: _Files = {}
    for path in sorted(source.rglob("*")) if source.is_dir() else ():
        match = pattern.fullmatch(path.name)
        part = (match[1] or match[3] or "").lower() if match else ""
        if match is None or not part:
            continue
        name = match[2].lower() if pattern is _FEATURES else match[2]
        of_part = found.setdefault(part, {})
        if name in of_part:
            got = f"{of_part[name]} and {path}"
            raise DataError.at(str(source), name, f"one file for {part}", got)
        of_part[name] = path
    return found


def _same(source: Path, what: str, found: _Files) -> list[str]:
    """The names, which all parts must have."""
    if not found:
        expected = (
            "files such as Train_Normalized_CH.dat"
            if what == "features"
            else "files such as Labels_bear_Train.txt"
        )
        raise DataError.at(str(source), what, expected, "none")
    names = [sorted(each) for each in found.values()]
    if any(each != names[0] for each in names):
        odd = sorted(set(names[0]) ^ set(names[-1]))[0]
        raise DataError.at(str(source), what, "the same files for every part", f"{odd!r} in one")
    return names[0]


def _rows(
    features: dict[str, Path], labels: dict[str, Path], kinds: list[str], concepts: list[str]
) -> Iterator[tuple[dict[str, Array], list[float]]]:
    """The samples of a part, from all files at once."""
    files = [*(features[kind] for kind in kinds), *(labels[concept] for concept in concepts)]
    streams = [_numbers(path) for path in files]
    row = 0
    while True:
        found = [next(stream, None) for stream in streams]
        values = [value for value in found if value is not None]
        if not values:
            return
        if len(values) < len(files):
            short, longer = (files[_first(found, absent)] for absent in (True, False))
            expected = f"as many rows as {longer.name} has"
            raise DataError.at(str(short), "rows", expected, str(row))
        y = values[len(kinds) :]
        for path, label in zip(files[len(kinds) :], y, strict=True):
            if label.shape != (1,) or label[0] not in (0, 1):
                raise DataError.at(str(path), "rows", "a label of 0 or 1", f"another in row {row}")
        yield dict(zip(kinds, values, strict=False)), [float(label[0]) for label in y]
        row += 1


def _first(found: list[Array | None], absent: bool) -> int:
    return [value is None for value in found].index(absent)


def _numbers(path: Path) -> Iterator[Array]:
    """The rows of a table of numbers."""
    with require_file(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            if not (cells := line.split()):
                continue
            try:
                yield np.array(cells, np.float64)
            except ValueError:
                got = f"{line[:40]!r} in line {number}"
                raise DataError.at(str(path), "rows", "numbers", got) from None


def _width(path: Path) -> int:
    for row in _numbers(path):
        return len(row)
    raise DataError.at(str(path), "rows", "at least one", "none")
