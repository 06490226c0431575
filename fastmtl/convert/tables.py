"""Tables of text that come with a data set, and the manifest that `fastmtl extract` reads."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from fastmtl._files import replacing
from fastmtl.data.csv_rows import table_rows
from fastmtl.data.writing import check_new_file


def read_rows(path: Path, needed: Iterable[str] = ()) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a `.csv`, or of a table separated by tabs, whose quotes are text; each by the
    names of the columns, with the number of its line.

    Raises:
        DataError: for a file that is no table, or has not the columns `needed`.
    """
    commas = path.suffix.lower() == ".csv"
    form = {"strict": True} if commas else {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    return table_rows(path, needed, **form)


def check_manifest(out: Path, *, overwrite: bool) -> None:
    """Raise DataError unless a manifest can be written there."""
    name = "a name in .csv: what comes is a manifest for fastmtl extract"
    check_new_file(out, name, (".csv",), overwrite=overwrite)


def write_manifest(out: Path, columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> None:
    """Write a manifest, whole or not at all; a column that a row lacks is empty."""
    with replacing(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def relative(path: Path, out: Path) -> str:
    """A path as a manifest names it: from the directory that the manifest is in."""
    try:
        return Path(os.path.relpath(path, out.absolute().parent)).as_posix()
    except ValueError:  # on another drive
        return str(path.absolute())
