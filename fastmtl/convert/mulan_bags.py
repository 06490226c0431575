"""Multi-instance multi-label sets in Weka's relational ARFF, with MULAN's list of labels.

A row is a bag: its name, its instances as a quoted table with a row an instance, and its labels:

    @attribute id {bag1,bag2}
    @attribute bag relational
      @attribute f1 numeric
    @end bag
    @attribute flood {0,1}
    @data
    bag1,"0.5\\n0.25",1
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fastmtl.data import DataError, h5_writer
from fastmtl.data.arff import read_label_names
from fastmtl.data.fields import require_file
from fastmtl.data.rows import Array

_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_ATTRIBUTE = re.compile(rf"@attribute\s+({_QUOTED}|[^\s{{]+)\s*(.*)$", re.IGNORECASE)
_CELL = re.compile(rf"\s*({_QUOTED}|[^,]*?)\s*(,|$)")
_NUMERIC = ("numeric", "real", "integer")
_LABEL = re.compile(r"\{\s*['\"]?0['\"]?\s*,\s*['\"]?1['\"]?\s*\}")


@dataclass
class _Header:
    """The attributes of a bag by their place, and those of an instance."""

    names: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    bag: int | None = None
    instance: list[str] = field(default_factory=list)


def convert(
    source: Path,
    out: Path,
    *,
    xml: Path | None = None,
    dtype: str = "float32",
    overwrite: bool = False,
) -> list[str]:
    """Write bags as sequences of any length, one step an instance, to an .h5.

    Args:
        source: the `.arff`; where it is `X-train.arff`, `X-test.arff` beside it is the test split.
        out: the file to write.
        xml: the list of labels; X.xml beside `source` without it, and without that file, every
            attribute of {0,1} behind the bag is a label.
        dtype: of the features: float32 or float16.
        overwrite: whether `out` may be replaced.

    Raises:
        DataError: for a file of another layout.
    """
    stem = source.stem.removesuffix("-train")
    beside = source.with_name(f"{stem}-test.arff")
    both = stem != source.stem and beside.exists()
    parts = {"train": source, "test": beside} if both else {None: source}
    header = _read_header(str(source), _lines(source))
    found = xml or source.with_name(f"{stem}.xml")
    places = _labels(source, header, found if xml or found.exists() else None)
    names = [header.names[place] for place in places]
    with h5_writer(
        out,
        {"x": (None, len(header.instance))},
        label_names=names,
        dtype=dtype,
        overwrite=overwrite,
    ) as writer:
        for split, path in parts.items():
            for name, instances, y in _bags(path, header, places):
                writer.add({"x": instances}, y=y, split=split, name=name)
    return [f"{len(writer):,} bags of {len(header.instance):,} features, {len(names):,} labels"]


def _labels(source: Path, header: _Header, xml: Path | None) -> list[int]:
    """The places of the labels, in the order of the columns."""
    bag = header.bag or 0
    if xml is None:
        found = [i for i in range(bag + 1, len(header.names)) if _LABEL.fullmatch(header.kinds[i])]
    else:
        names = read_label_names(xml)
        if absent := [name for name in names if name not in header.names]:
            got = f"{absent[0]!r} of {xml}"
            raise DataError.at(str(source), "labels", "labels that are attributes", got)
        found = [i for i, name in enumerate(header.names) if name in names]
    if not found:
        raise DataError.at(str(source), "labels", "attributes of {0,1} behind the bag", "none")
    return found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines with something in them, by number; comments are not."""
    with require_file(path).open("rb") as file:
        for number, content in enumerate(file, 1):
            try:
                line = content.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                line = content.decode("latin-1")
            if (line := line.strip()) and not line.startswith("%"):
                yield number, line


def _read_header(source: str, lines: Iterator[tuple[int, str]]) -> _Header:
    """What stands above the rows; `lines` goes on with the first of them."""
    header, inside = _Header(), False
    for number, line in lines:
        word = line.split(maxsplit=1)[0].lower()
        if word == "@data":
            if header.bag is None or not header.instance or inside:
                expected = "a relational attribute of numeric ones, ended by @end"
                raise DataError.at(source, "header", expected, "none before @data")
            return header
        if word == "@end":
            inside = False
        elif word == "@attribute" and (match := _ATTRIBUTE.match(line)):
            name, kind = _unquoted(match[1]), match[2].strip()
            if inside and kind.lower() not in _NUMERIC:
                got = f"{kind[:40]!r} for {name!r} in line {number}"
                raise DataError.at(source, "header", "numeric features in a bag", got)
            if kind.lower() == "relational":
                if header.bag is not None:
                    got = f"another in line {number}"
                    raise DataError.at(source, "header", "one relational attribute", got)
                header.bag, inside = len(header.names), True
            if inside and kind.lower() in _NUMERIC:
                header.instance.append(name)
            else:
                header.names.append(name)
                header.kinds.append(kind)
        elif word != "@relation":
            got = f"{line[:40]!r} in line {number}"
            raise DataError.at(source, "header", "@attribute, @end or @data", got)
    raise DataError.at(source, "@data", "a data section", "a file that ends before it")


def _bags(path: Path, like: _Header, places: list[int]) -> Iterator[tuple[str, Array, list[float]]]:
    """Name, instances (L, D) and labels (T,) of every row of a file of the header `like`."""
    source, lines = str(path), _lines(path)
    header = _read_header(source, lines)
    if (header.names, header.instance) != (like.names, like.instance):
        raise DataError.at(source, "header", "the attributes of the training file", "others")
    for number, line in lines:
        cells = _cells(line)
        if len(cells) != len(header.names):
            got = f"{len(cells)} in line {number}"
            raise DataError.at(source, "@data", f"{len(header.names)} values in a row", got)
        y = []
        for place in places:
            label = _unquoted(cells[place])
            if label not in ("0", "1", "?"):
                got = f"{label[:40]!r} in line {number}"
                raise DataError.at(source, header.names[place], "0, 1 or ?", got)
            y.append(float("nan") if label == "?" else float(label))
        bag = header.bag or 0
        name = _unquoted(cells[0]) if bag else f"row {number}"
        yield name, _instances(source, cells[bag], len(header.instance), number), y


def _cells(line: str) -> list[str]:
    """The cells of a row, quotes and all."""
    cells, position = [], 0
    while (match := _CELL.match(line, position)) is not None:
        cells.append(match[1])
        position = match.end()
        if not match[2]:
            break
    return cells


def _instances(source: str, cell: str, size: int, number: int) -> Array:
    rows = [row.split(",") for row in _unquoted(cell).split("\n") if row.strip()]
    if not rows or any(len(row) != size for row in rows):
        expected = f"instances of {size} features"
        raise DataError.at(source, "bag", expected, f"others, or none, in line {number}")
    try:
        return np.array(rows, np.float64)
    except ValueError as error:
        raise DataError.at(source, "bag", "numbers", f"{error} in line {number}") from None


def _unquoted(text: str) -> str:
    """What is within quotes, where \\n is the end of a line."""
    if len(text) < 2 or text[0] != text[-1] or text[0] not in "'\"":
        return text
    return re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], text[1:-1])
