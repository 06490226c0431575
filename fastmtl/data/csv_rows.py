"""Tables of text, a row at a time, by the names of their columns."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fastmtl.data.checks import repeated
from fastmtl.data.errors import DataError
from fastmtl.data.fields import require_file


def table_rows(
    path: Path, needed: Iterable[str] = (), **form: Any
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table under its line of names, each with the number of its line; their cells
    are stripped, and rows without any are left out.

    Args:
        path: a file in UTF-8.
        needed: columns that it must have.
        **form: what `csv.reader` takes.

    Raises:
        DataError: for a file that is no table, or lacks a column that is needed.
    """
    source = str(require_file(path))
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, **form)
        try:
            names = [name.strip() for name in next(lines, [])]
            if (twice := repeated(names)) is not None:
                got = f"{twice!r} more than once"
                raise DataError.at(source, "columns", "distinct names", got)
            if absent := [name for name in needed if name not in names]:
                got = ", ".join(names)[:200] or "none"
                raise DataError.at(source, "columns", f"a column {absent[0]!r}", got)
            for cells in lines:
                if not any(cells):
                    continue
                if len(cells) != len(names):
                    got = f"{len(cells)} in line {lines.line_num}"
                    raise DataError.at(source, "rows", f"{len(names)} cells", got)
                yield lines.line_num, dict(zip(names, map(str.strip, cells), strict=True))
        except (csv.Error, UnicodeError) as error:
            got = f"a broken one ({error})"
            raise DataError.at(source, "file", "a table in UTF-8", got) from None
