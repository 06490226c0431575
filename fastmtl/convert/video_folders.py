"""A folder a video, and a table with the concepts of each: how disaster videos are usually kept."""

from __future__ import annotations

from pathlib import Path

from fastmtl.convert.tables import check_manifest, read_rows, relative, write_manifest
from fastmtl.data import DataError
from fastmtl.data.splits import SPLITS

# What a file of a folder is, by its ending.
_KINDS = {
    "video": (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".3gp"),
    "audio": (".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac"),
    "text": (".txt",),
}
_OTHERS = ("split", "group")


def convert(
    source: Path, out: Path, *, table: Path | None = None, overwrite: bool = False
) -> list[str]:
    """Write a manifest with the files of a video, its text and its concepts in a row.

    A folder holds at most one file of each kind: a video, a sound file, a `.txt` with its text. The
    table's first column names the folder, `split` and `group` are as in a data file, and every
    other column is a concept of 0, 1 or nothing.

    Args:
        source: the directory of folders.
        out: the manifest to write, a `.csv`.
        table: a `.csv`, or a table separated by tabs; the only one in `source` without it.
        overwrite: whether `out` may be replaced.

    Raises:
        DataError: for a folder or a table that cannot be used.
    """
    check_manifest(out, overwrite=overwrite)
    table = _table(source) if table is None else table
    rows: list[dict[str, str]] = []
    seen: set[str] = set()
    concepts: list[str] = []
    for line, row in read_rows(table):
        first, *others = row
        name = row[first]
        place = f"{name!r} in line {line}"
        if name in seen:
            raise DataError.at(str(table), first, "every folder once", f"{place} again")
        folder = source / name
        if not name or not folder.is_dir():
            raise DataError.at(str(table), first, f"a folder in {source}", place)
        seen.add(name)
        concepts = [column for column in others if column not in _OTHERS]
        if not concepts:
            raise DataError.at(str(table), "columns", "concepts besides the folder", "none")
        rows.append(_row(folder, out, row, concepts, str(table), place) | {"name": name})
    if not rows:
        raise DataError.at(str(table), "rows", "at least one", "none")
    besides = [name for name in (*_KINDS, *_OTHERS) if any(name in row for row in rows)]
    columns = ["name", *besides, *(f"y_{concept}" for concept in concepts)]
    write_manifest(out, columns, rows)
    left = sum(each.is_dir() and each.name not in seen for each in source.iterdir())
    told = [f"{len(rows):,} videos, {len(concepts):,} concepts"]
    return told + ([f"{left:,} folders are not in {table}"] if left else [])


def _table(source: Path) -> Path:
    found = [p for p in sorted(source.glob("*")) if p.suffix.lower() in (".csv", ".tsv")]
    if len(found) != 1:
        expected = "one .csv or .tsv with the concepts (or table, --table FILE)"
        got = ", ".join(path.name for path in found) or "none"
        raise DataError.at(str(source), "table", expected, got)
    return found[0]


def _row(
    folder: Path, out: Path, row: dict[str, str], concepts: list[str], table: str, place: str
) -> dict[str, str]:
    found: dict[str, str] = {}
    for kind, endings in _KINDS.items():
        paths = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in endings]
        if len(paths) > 1:
            got = f"{paths[0].name} and {paths[1].name}"
            raise DataError.at(str(folder), kind, "one file of this kind", got)
        if paths and kind == "text":
            found[kind] = _text(paths[0])
        elif paths:
            found[kind] = relative(paths[0], out)
    if not found:
        known = ", ".join(ending for each in _KINDS.values() for ending in each)
        raise DataError.at(str(folder), "files", f"any in {known}", "none")
    for concept in concepts:
        if row[concept] not in ("0", "1", ""):
            got = f"{row[concept]!r} for {place}"
            raise DataError.at(table, concept, "0, 1 or nothing (missing)", got)
        found[f"y_{concept}"] = row[concept]
    if row.get("split", SPLITS[0]) not in SPLITS:
        got = f"{row['split']!r} for {place}"
        raise DataError.at(table, "split", ", ".join(SPLITS), got)
    return found | {name: row[name] for name in _OTHERS if name in row}


def _text(path: Path) -> str:
    try:
        return " ".join(path.read_text(encoding="utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise DataError.at(str(path), "text", "UTF-8", f"something else ({error})") from None
