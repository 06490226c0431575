"""Manifests: tables that say where the media of each clip are, and what its labels are."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastmtl._checks import did_you_mean
from fastmtl.data.csv_rows import table_rows
from fastmtl.data.errors import DataError
from fastmtl.data.fields import require_file
from fastmtl.data.splits import SPLITS
from fastmtl.media.worker import Sources

MODALITIES = ("video", "audio", "text")
_FILES, _TEXT, _LABEL = ("video", "audio", "text_file"), "text", "y_"
_BESIDES = ("name", "split", "group")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_LINES = (".jsonl", ".ndjson")
_BINARY = {"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0, "false": 0.0, "true": 1.0}

# A row: its cells by column, stripped, "" where empty.
_Row = dict[str, str]


@dataclass(frozen=True)
class Clip:
    """A row of a manifest.

    - `name`: what the sample is called;
    - `line`: of the file;
    - `sources`: a file (Path) or a text (str) by modality, of those it has;
    - `labels`: T of 0, 1, and None for missing;
    - `classes`: a name by task, of those it has;
    - `split`, `group`: None where the manifest has no such column.
    """

    name: str
    line: int
    sources: Sources
    labels: list[float | None]
    classes: dict[str, str]
    split: str | None = None
    group: str | None = None

    def read_for(self, modalities: Collection[str]) -> Sources:
        """What is read for some modalities: of each its file, for sound that of its video too."""
        sources = {m: self.sources[m] for m in modalities if m in self.sources}
        if "audio" in modalities and "audio" not in sources and "video" in self.sources:
            sources["audio"] = self.sources["video"]
        return sources


@dataclass(frozen=True)
class Manifest:
    """The clips of a manifest, the names of their labels and classes, and the modalities that it
    has columns of; a video may have sound besides."""

    source: str
    clips: list[Clip]
    label_names: list[str]
    class_names: dict[str, list[str]]
    modalities: list[str]
    warnings: tuple[str, ...] = ()


def read_manifest(path: str | Path, *, labels: bool = True) -> Manifest:
    """Read a manifest: a .csv, .tsv or .jsonl (a JSON object a line) with a row a clip.

    Columns `video` and `audio` are files, `text` is a text and `text_file` a file of one; paths are
    taken from the manifest's directory. `name` is what a clip is called, by default its first file.
    `split` is train, val or test. `y_<label>` columns are labels: 0, 1, or empty for missing; one
    of other values is a task of several classes, whose names the values are. `group` may be
    anything; a clip without one is its own group.

    Args:
        path: the file.
        labels: whether the labels are read.

    Raises:
        DataError: for a file that cannot be used.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     text = "video,text,y_sea,y_kind\\na.mp4,waves,1,storm\\nb.mp4,,0,\\n"
        ...     _ = Path(folder, "clips.csv").write_text(text)
        ...     manifest = read_manifest(folder + "/clips.csv")
        >>> manifest.label_names, manifest.class_names, manifest.modalities
        (['sea'], {'kind': ['storm']}, ['video', 'text'])
        >>> [(clip.name, clip.labels, clip.classes) for clip in manifest.clips]
        [('a.mp4', [1.0], {'kind': 'storm'}), ('b.mp4', [0.0], {})]
    """
    path = require_file(path)
    source, rows = str(path), _rows(path)
    columns = list(dict.fromkeys(name for _, row in rows for name in row))
    media = [name for name in columns if name in (*_FILES, _TEXT)]
    if not media:
        expected = f"a column named {', '.join(_FILES)} or {_TEXT}"
        got = ", ".join(columns) + did_you_mean(columns[0] if columns else None, (*_FILES, _TEXT))
        raise DataError.at(source, "columns", expected, got)
    tasks = [name for name in columns if name.startswith(_LABEL) and labels]
    kinds = {name: _values(source, name, rows) for name in tasks}
    binary = [name for name in tasks if kinds[name] is None]
    classes = {name[len(_LABEL) :]: names for name, names in kinds.items() if names is not None}
    clips = [_clip(path, line, row, columns, binary, list(classes)) for line, row in rows]
    known = {*media, *_BESIDES, *tasks}
    unread = [n for n in columns if n not in known and not n.startswith(_LABEL)]
    return Manifest(
        source,
        clips,
        label_names=[name[len(_LABEL) :] for name in binary],
        class_names=classes,
        modalities=[m for m in MODALITIES if m in media or f"{m}_file" in media],
        warnings=tuple(f"{source}: the column {n!r} is unknown and was not read" for n in unread),
    )


def _rows(path: Path) -> list[tuple[int, _Row]]:
    """The rows, by the numbers of their lines."""
    source, suffix = str(path), path.suffix.lower()
    if suffix not in _DELIMITERS and suffix not in _LINES:
        expected = "a name in .csv, .tsv, .jsonl or .ndjson"
        raise DataError.at(source, "file", expected, f"the ending {suffix!r}" if suffix else "none")
    try:
        if suffix in _LINES:
            rows = list(_json_rows(path))
        else:
            rows = list(table_rows(path, delimiter=_DELIMITERS[suffix], strict=True))
    except DataError:
        raise
    # The readers raise whatever damage makes them stumble over.
    except Exception as error:
        raise DataError.at(source, "file", "a table", f"a broken one ({error})") from None
    if not rows:
        raise DataError.at(source, "rows", "at least one", "none")
    return rows


def _json_rows(path: Path) -> Iterator[tuple[int, _Row]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            place = f"line {number}"
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError.at(str(path), place, "a JSON object", f"{error}") from None
            if not isinstance(value, dict):
                raise DataError.at(str(path), place, "a JSON object", type(value).__name__)
            yield number, {name: _cell(path, place, name, each) for name, each in value.items()}


def _cell(path: Path, place: str, name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | int | float):
        return str(value).lower()
    if isinstance(value, str):
        return value.strip()
    expected = "a string, a number, true, false or null"
    raise DataError.at(str(path), f"{name} in {place}", expected, type(value).__name__)


def _values(source: str, name: str, rows: Sequence[tuple[int, _Row]]) -> list[str] | None:
    """The names of the classes in a column, None for one of 0 and 1."""
    first = {row[name]: line for line, row in reversed(rows) if row.get(name)}
    if all(value.lower() in _BINARY for value in first):
        return None
    for value, line in first.items():
        if _is_fraction(value):
            expected = "0, 1, the name of a class, or nothing"
            raise DataError.at(source, name, expected, f"{value!r} in line {line}")
    return sorted(first, key=lambda value: (len(value) if value.isdecimal() else 0, value))


def _is_fraction(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return not value.isdecimal()


def _clip(
    path: Path,
    line: int,
    row: Mapping[str, str],
    columns: Sequence[str],
    binary: Sequence[str],
    tasks: Sequence[str],
) -> Clip:
    source, place = str(path), f"in line {line}"
    sources: dict[str, Path | str] = {}
    for name in _FILES:
        if cell := row.get(name):
            if "\0" in cell:
                raise DataError.at(source, name, "the path of a file", f"{cell!r} {place}")
            sources["text" if name == "text_file" else name] = path.parent / cell
    if text := row.get(_TEXT):
        if "text" in sources:
            raise DataError.at(source, _TEXT, "either text or text_file", f"both {place}")
        sources["text"] = text
    if not sources:
        raise DataError.at(source, "rows", "a file or a text", f"neither {place}")
    split = row.get("split", "") if "split" in columns else None
    if split is not None and split not in SPLITS:
        raise DataError.at(source, "split", ", ".join(SPLITS), f"{split!r} {place}")
    files = [row[name] for name in _FILES if row.get(name)]
    name = row.get("name") or (files[0] if files else f"line {line}")
    return Clip(
        name=name,
        line=line,
        sources=sources,
        labels=[_BINARY[row[each].lower()] if row.get(each) else None for each in binary],
        classes={task: row[_LABEL + task] for task in tasks if row.get(_LABEL + task)},
        split=split,
        group=(row.get("group") or name) if "group" in columns else None,
    )
