"""The tables in `.arff` files: a typed header, and dense or sparse rows of numbers."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastmtl.data.budget import Budget
from fastmtl.data.errors import DataError
from fastmtl.data.fields import require_file

_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_STRING = re.compile(_QUOTED)
_MARK = re.compile("['\"%]")
_SPACE = re.compile(r"\s*")
_PAIR = re.compile(rf"\s*(\d+)\s+({_QUOTED}|[^\s,]+)\s*(,|$)")
_ATTRIBUTE = re.compile(rf"@attribute\s+({_QUOTED}|[^\s{{]+)\s*(.*)$", re.IGNORECASE)
_NUMERIC = ("numeric", "real", "integer")

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Attribute:
    """A column of the table. `codes` maps the categories of a nominal one to numbers.

    The numbers are the categories themselves where all of them are numerals, and their positions
    in the declaration otherwise. `default` is what a sparse row means by leaving the column out:
    0, or the category declared first.
    """

    name: str
    codes: dict[str, float] | None = None
    default: float = 0.0

    @property
    def numerals(self) -> bool:
        """Whether every value is written as the number that stands for it."""
        return self.codes is None or all(_number(c) == v for c, v in self.codes.items())


@dataclass(frozen=True)
class Table:
    """The contents of an `.arff` file: `values` (N, A) with NaN for `?`, `lines` (N,)."""

    attributes: list[Attribute]
    values: FloatArray
    lines: list[int]


def read_table(arff: str | Path, like: list[Attribute] | None = None) -> Table:
    """The table of an `.arff` file; nominal columns are coded as those of `like` by their name."""
    path = require_file(arff)
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    lines = re.split("\r\n|\r|\n", text)
    schema = {a.name: a for a in like or ()}
    attributes, start = _read_header(str(path), lines, schema)
    rows, numbers = [], []
    for number, line in enumerate(lines[start:], start + 1):
        row = _without_comment(line).strip()
        if row:
            rows.append(row)
            numbers.append(number)
    if not rows:
        raise DataError.at(str(path), "@data", "at least one row", "none")
    parser = _RowParser(str(path), attributes)
    # Features and labels are copies of their columns.
    Budget(str(path), path).take_array("@data", len(rows) * len(attributes), 4)
    values = np.empty((len(rows), len(attributes)), dtype=np.float32)
    with np.errstate(over="ignore"):
        for i, (row, number) in enumerate(zip(rows, numbers, strict=True)):
            parse = parser.sparse if row.startswith("{") else parser.dense
            parse(row, number, values[i])
    _check_categories(str(path), attributes, values, numbers)
    return Table(attributes, values, numbers)


def _read_header(
    source: str, lines: list[str], schema: Mapping[str, Attribute]
) -> tuple[list[Attribute], int]:
    attributes: dict[str, Attribute] = {}
    for number, raw in enumerate(lines, 1):
        line = _without_comment(raw).strip()
        word = line.split(maxsplit=1)[0].lower() if line else ""
        if word == "@data":
            if not attributes:
                raise DataError.at(source, "header", "attributes before @data", "none")
            return list(attributes.values()), number
        if word == "@attribute":
            attribute = _read_attribute(source, line, number, schema)
            if attribute.name in attributes:
                got = f"{attribute.name!r} more than once, again in line {number}"
                raise DataError.at(source, "@attribute", "distinct names", got)
            attributes[attribute.name] = attribute
        elif word not in ("", "@relation"):
            expected = "@relation, @attribute or @data"
            raise DataError.at(source, "header", expected, f"{line[:40]!r} in line {number}")
    raise DataError.at(source, "@data", "a data section", "a file that ends before it")


def _read_attribute(
    source: str, line: str, number: int, schema: Mapping[str, Attribute]
) -> Attribute:
    match = _ATTRIBUTE.match(line)
    kind = match.group(2).strip() if match else ""
    name = _unquoted(match.group(1)) if match else ""
    if kind.lower() in _NUMERIC:
        return Attribute(name)
    if not (kind.startswith("{") and kind.endswith("}")):
        got = f"{kind[:40]!r} for {name!r} in line {number}"
        raise DataError.at(source, "@attribute", "numeric or {nominal}", got)
    categories = _split_cells(kind[1:-1])
    parsed = [_number(c) for c in categories]
    if None in parsed:
        parsed = [float(i) for i in range(len(categories))]
    codes = {c: v for c, v in zip(categories, parsed, strict=True) if v is not None}
    known = schema[name].codes if name in schema else None
    if known is not None:
        if not set(codes) <= set(known):
            got = f"another one, {sorted(set(codes) - set(known))[0]!r}"
            expected = f"the categories that {name!r} has in the training file"
            raise DataError.at(source, "@attribute", expected, got)
        codes = {c: known[c] for c in categories}
    return Attribute(name, codes, codes[categories[0]])


class _RowParser:
    """Turns a row of text into numbers: one conversion per row where every cell is a numeral."""

    def __init__(self, source: str, attributes: list[Attribute]) -> None:
        self.source = source
        self.attributes = attributes
        self.plain = all(a.numerals for a in attributes)
        self.defaults = np.array([a.default for a in attributes], dtype=np.float32)

    def dense(self, row: str, number: int, out: FloatArray) -> None:
        if self.plain:
            cells = row.split(",")
            if len(cells) == len(out):
                try:
                    out[:] = np.array(cells, dtype=np.float64)
                    return
                except ValueError:
                    pass
        cells = row.split() if "," not in row and len(out) > 1 else _split_cells(row)
        if len(cells) != len(out):
            got = f"{len(cells)} in line {number}"
            raise DataError.at(self.source, "@data", f"{len(out)} values in a row", got)
        out[:] = [self._value(i, cell, number) for i, cell in enumerate(cells)]

    def sparse(self, row: str, number: int, out: FloatArray) -> None:
        body = row[1:-1].strip()
        if not row.endswith("}"):
            raise DataError.at(
                self.source, "@data", "a sparse row that ends in }", f"line {number}"
            )
        out[:] = self.defaults
        if not body:
            return
        columns, cells = _split_pairs(body)
        if not columns:
            expected = "'column value' pairs in a sparse row"
            raise DataError.at(self.source, "@data", expected, f"{body[:40]!r} in line {number}")
        if max(columns) >= len(out) or len(set(columns)) != len(columns):
            expected = f"distinct columns from 0 to {len(out) - 1} in a sparse row"
            got = f"a repeated one in line {number}"
            if max(columns) >= len(out):
                got = f"{max(columns)} in line {number}"
            raise DataError.at(self.source, "@data", expected, got)
        try:
            if not self.plain:
                raise ValueError
            values = np.array(cells, dtype=np.float64)
        except ValueError:
            pairs = zip(columns, cells, strict=True)
            values = np.array([self._value(c, cell, number) for c, cell in pairs])
        out[columns] = values

    def _value(self, column: int, cell: str, number: int) -> float:
        attribute = self.attributes[column]
        if cell == "?":
            return float("nan")
        value = _number(cell)
        if attribute.codes is not None:
            value = attribute.codes.get(cell, value if attribute.numerals else None)
        if value is None:
            expected = "a number" if attribute.codes is None else "one of its categories"
            got = f"{cell[:40]!r} in line {number}"
            raise DataError.at(self.source, attribute.name, expected, got)
        return value


def _check_categories(
    source: str, attributes: list[Attribute], values: FloatArray, lines: list[int]
) -> None:
    alike: dict[tuple[float, ...], list[int]] = {}
    for column, attribute in enumerate(attributes):
        if attribute.codes is not None:
            alike.setdefault(tuple(sorted(attribute.codes.values())), []).append(column)
    for codes, columns in alike.items():
        part = values[:, columns]
        bad = ~(np.isin(part, np.array(codes, dtype=np.float32)) | np.isnan(part))
        if bad.any():
            row, at = np.argwhere(bad)[0].tolist()
            got = f"{part[row, at].item():g} in line {lines[row]}"
            name = attributes[columns[at]].name
            raise DataError.at(source, name, "one of its categories", got)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _without_comment(line: str) -> str:
    """The line up to a % that is not within quotes."""
    position = 0
    while "%" in line and (mark := _MARK.search(line, position)):
        string = None if mark.group() == "%" else _STRING.match(line, mark.start())
        if string is None:
            # Beyond a quote that does not end there are no strings.
            end = line.find("%", mark.start())
            return line if end < 0 else line[:end]
        position = string.end()
    return line


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text


def _split_cells(text: str) -> list[str]:
    """The cells of a comma-separated row; a comma within quotes belongs to its cell."""
    if "'" not in text and '"' not in text:
        return [cell.strip() for cell in text.split(",")]
    cells: list[str] = []
    position = 0
    while position <= len(text):
        start = _end(_SPACE, text, position)
        after = _end(_SPACE, text, _end(_STRING, text, start))
        # Words around a string, as in 'a' b, make it a part of the cell.
        string = after > start and (after == len(text) or text[after] == ",")
        end = after if string else text.find(",", start)
        end = len(text) if end < 0 else end
        cells.append(_unquoted(text[start:end].strip()))
        position = end + 1
    return cells


def _end(pattern: re.Pattern[str], text: str, start: int) -> int:
    """Where a match that begins at `start` ends; `start` if there is none."""
    match = pattern.match(text, start)
    return match.end() if match else start


def _column(digits: str) -> int:
    """The number of a column; of numbers beyond any, a large one."""
    return int(digits) if len(digits) < 19 else sys.maxsize


def _split_pairs(text: str) -> tuple[list[int], list[str]]:
    """Columns and cells of a sparse row's body; nothing if it is not made of pairs."""
    if "'" not in text and '"' not in text:
        words = [pair.split() for pair in text.split(",")]
        if any(len(pair) != 2 or not pair[0].isdecimal() for pair in words):
            return [], []
        return [_column(pair[0]) for pair in words], [pair[1] for pair in words]
    columns: list[int] = []
    cells: list[str] = []
    position = 0
    while match := _PAIR.match(text, position):
        columns.append(_column(match.group(1)))
        cells.append(_unquoted(match.group(2)))
        position = match.end()
        if not match.group(3):
            return columns, cells
    return [], []
