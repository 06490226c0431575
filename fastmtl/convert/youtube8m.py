"""YouTube-8M: TFRecords of video-level or frame-level features.

A video-level record is a tf.Example with `mean_rgb` and `mean_audio`, a frame-level one a
tf.SequenceExample with a list of quantised `rgb` and `audio` frames; both name their `id` and
`labels` (research.google.com/youtube8m/download.html).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from fastmtl.convert.examples import Feature, parse_example, parse_lists
from fastmtl.convert.tables import read_rows
from fastmtl.convert.tfrecord import records
from fastmtl.data import DataError, h5_writer
from fastmtl.data.fields import require_file
from fastmtl.data.h5_samples import Shape
from fastmtl.data.rows import Array

CLASSES = 3862  # of the vocabulary of 2018
_SPLITS = {"train": "train", "validate": "val", "test": "test"}
_LOW, _HIGH = -2.0, 2.0  # of what frames were quantised from


def convert(
    source: Path,
    out: Path,
    *,
    vocabulary: Path | None = None,
    labels: int | None = None,
    dtype: str = "float32",
    overwrite: bool = False,
) -> list[str]:
    """Write the records of a file or directory to an .h5.

    Args:
        source: a `.tfrecord` file or a directory of them. Names that begin with train, validate or
            test say the split, where all of them do.
        out: the file to write. Modalities are `rgb` and `audio`: vectors, or sequences of any
            length.
        vocabulary: the table that names the labels, `vocabulary.csv`; one beside the records is
            found.
        labels: keep the first so many, which are the most frequent ones. All by default.
        dtype: of the features: float32 or float16.
        overwrite: whether `out` may be replaced.

    Raises:
        DataError: for records that are damaged or of another kind.
    """
    paths = _paths(source)
    splits = [_split(path) for path in paths]
    folder = source if source.is_dir() else source.parent
    found = vocabulary or folder / "vocabulary.csv"
    names = _label_names(found) if vocabulary or found.exists() else _numbered(CLASSES)
    if labels is not None and not 0 < labels <= len(names):
        raise DataError.at(str(source), "labels", f"1 to {len(names)}", str(labels))
    videos = _videos(paths, [None] * len(paths) if None in splits else splits)
    first = next(videos, None)
    if first is None:
        raise DataError.at(str(source), "records", "at least one", "none")
    shapes = {name: _shape(value) for name, value in first["x"].items()}
    with h5_writer(
        out, shapes, label_names=names[:labels], dtype=dtype, overwrite=overwrite
    ) as writer:
        for video in chain([first], videos):
            y = _targets(video, len(names), labels)
            writer.add(video["x"], y=y, split=video["split"], name=video["name"])
    return [f"{len(writer):,} videos from {len(paths):,} files, {len(names[:labels]):,} labels"]


def _paths(source: Path) -> list[Path]:
    if not source.is_dir():
        return [require_file(source)]
    paths = sorted(source.glob("*.tfrecord"))
    if not paths:
        raise DataError.at(str(source), "file", "a directory of .tfrecord files", "none in it")
    return paths


def _split(path: Path) -> str | None:
    return next((split for name, split in _SPLITS.items() if path.name.startswith(name)), None)


def _numbered(count: int) -> list[str]:
    return [f"label_{i}" for i in range(count)]


def _label_names(path: Path) -> list[str]:
    """The names in the order of their indices; those that several labels have with the index."""
    source, rows = str(path), list(read_rows(path, ("Index", "Name")))
    try:
        names = {int(row["Index"]): row["Name"] or f"label_{row['Index']}" for _, row in rows}
    except ValueError as error:
        raise DataError.at(source, "Index", "an integer", f"another ({error})") from None
    if sorted(names) != list(range(len(rows))) or not rows:
        raise DataError.at(source, "Index", f"0 to {len(rows) - 1}, each once", "others")
    ordered = [names[i] for i in range(len(rows))]
    times = Counter(ordered)
    return [f"{name} ({i})" if times[name] > 1 else name for i, name in enumerate(ordered)]


def _videos(paths: list[Path], splits: list[str | None]) -> Iterator[dict[str, Any]]:
    for path, split in zip(paths, splits, strict=True):
        for number, content in enumerate(records(path)):
            place = f"record {number}"
            try:
                context, frames = parse_example(content), parse_lists(content)
            except (ValueError, KeyError) as error:
                got = f"something else ({error})"
                expected = "a tf.Example or tf.SequenceExample"
                raise DataError.at(str(path), place, expected, got) from None
            yield {
                "path": path,
                "place": place,
                "x": _features(path, place, context, frames),
                "name": _name(context),
                "labels": context.get("labels"),
                "split": split,
            }


def _name(context: dict[str, Feature]) -> str:
    """The video's id, as either version of the set has it."""
    given = context.get("id") or context.get("video_id")
    return given[0].decode("utf-8", "replace") if isinstance(given, list) and given else ""


def _features(
    path: Path, place: str, context: dict[str, Feature], frames: dict[str, list[Feature]]
) -> dict[str, Array]:
    out: dict[str, Array] = {}
    for name in ("rgb", "audio"):
        mean = context.get(f"mean_{name}")
        if isinstance(mean, np.ndarray) and mean.size:
            out[name] = mean
        elif frames.get(name):
            out[name] = dequantized(path, place, name, frames[name])
    if not out:
        there = ", ".join((*context, *frames)) or "none"
        expected = "mean_rgb or mean_audio, or frames of rgb or audio"
        raise DataError.at(str(path), place, expected, there)
    return out


def dequantized(path: Path, place: str, name: str, frames: list[Feature]) -> Array:
    """Frames (L, D) out of bytes: q (high - low) / 255 + low + (high - low) / 512, as the set's own
    reader has it (`utils.Dequantize`)."""
    bytes_of = [each[0] for each in frames if isinstance(each, list) and len(each) == 1]
    if len(bytes_of) != len(frames) or len({len(each) for each in bytes_of}) != 1:
        raise DataError.at(str(path), f"{name} of {place}", "frames of one size in bytes", "others")
    quantised = np.frombuffer(b"".join(bytes_of), np.uint8).reshape(len(frames), -1)
    span = _HIGH - _LOW
    values: Array = quantised.astype(np.float32)
    values *= np.float32(span / 255)
    values += np.float32(_LOW + span / 512)
    return values


def _shape(value: Array) -> Shape:
    return (value.shape[0],) if value.ndim == 1 else (None, value.shape[1])


def _targets(video: dict[str, Any], count: int, kept: int | None) -> Array:
    """(T,): 1 for the labels of the video; missing where it has none, as in the test split."""
    given = video["labels"]
    if given is None or not len(given):
        return np.full(kept or count, np.nan)
    integers = isinstance(given, np.ndarray) and given.dtype.kind == "i"
    if not integers or given.min() < 0 or given.max() >= count:
        expected = f"labels from 0 to {count - 1} (vocabulary.csv beside the records has them)"
        raise DataError.at(str(video["path"]), video["place"], expected, str(list(given)[:5]))
    y = np.zeros(count)
    y[given] = 1
    return y[:kept]
