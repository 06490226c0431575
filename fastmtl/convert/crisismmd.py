"""CrisisMMD: tweets of disasters with images, in three multi-class tasks (crisisnlp.qcri.org).

Read are the splits of version 2.0, `task_TASK_text_img*_{train,dev,test}.tsv`, of the tasks
informative, humanitarian and damage.
"""

from __future__ import annotations

import re
from pathlib import Path

from fastmtl.convert.tables import check_manifest, read_rows, relative, write_manifest
from fastmtl.data import DataError

TASKS = ("informative", "humanitarian", "damage")
_FILE = re.compile(rf"task_({'|'.join(TASKS)})_text_img(?:_agreed_lab)?_(train|dev|test)\.tsv")
_SPLITS = {"train": "train", "dev": "val", "test": "test"}
_COLUMNS = ("tweet_id", "image_id", "tweet_text", "image", "label")
_UNJUDGED = {"", "dont_know_or_cant_judge"}


def convert(
    source: Path, out: Path, *, images: Path | None = None, overwrite: bool = False
) -> list[str]:
    """Write a manifest with an image, a text and up to three classes in a row.

    An image stands in the column `video`, of which it is one frame.

    The tasks have splits of their own. An image that any of them tests is a test sample here, and
    one that any of them validates on a validation sample, so that no task trains on what it is
    measured by.

    Args:
        source: the directory with the `.tsv` files of one of the two divisions (all labels, or
            those that text and image agree in), themselves or further below.
        out: the manifest to write, a `.csv`.
        images: the directory that `data_image` is in; `source` without it.
        overwrite: whether `out` may be replaced.

    Raises:
        DataError: for a directory without these files, and files that are of another layout.
    """
    check_manifest(out, overwrite=overwrite)
    rows: dict[str, dict[str, str]] = {}
    files = _files(source)
    moved: set[str] = set()
    for task, part, path in files:
        split = _SPLITS[part]
        for line, row in read_rows(path, _COLUMNS):
            name = row["image_id"]
            if not name:
                raise DataError.at(str(path), "image_id", "a name", f"none in line {line}")
            kept = rows.setdefault(
                name,
                {
                    "name": name,
                    "video": relative((images or source) / row["image"], out),
                    "text": row["tweet_text"],
                    "group": row["tweet_id"],
                    "split": split,
                },
            )
            if f"y_{task}" in kept:
                got = f"{name!r} again in line {line}"
                raise DataError.at(str(path), "image_id", f"an image once a task ({task})", got)
            kept[f"y_{task}"] = "" if row["label"] in _UNJUDGED else row["label"]
            if kept["split"] != split:
                moved.add(name)
            kept["split"] = max(kept["split"], split, key=list(_SPLITS.values()).index)
    if not rows:
        raise DataError.at(str(source), "rows", "at least one", "none")
    tasks = [task for task in TASKS if any(each[0] == task for each in files)]
    classes = [f"y_{task}" for task in tasks]
    columns = ["name", "video", "text", *classes, "split", "group"]
    write_manifest(out, columns, rows.values())
    absent = sum(not (out.parent / row["video"]).is_file() for row in rows.values())
    told = [f"{len(rows):,} images with texts, of the tasks {', '.join(tasks)}"]
    if moved:
        told.append(f"{len(moved):,} of them are in another split in another task")
    if absent:
        told.append(f"{absent:,} image files are not there")
    return told


def _files(source: Path) -> list[tuple[str, str, Path]]:
    """Task, split and path of every table."""
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(source.rglob("*.tsv")) if source.is_dir() else ():
        if match := _FILE.fullmatch(path.name):
            if (key := (match[1], match[2])) in found:
                got = f"{found[key]} and {path}"
                expected = (
                    "one division of the data (name its directory, and images that of data_image)"
                )
                raise DataError.at(str(source), "files", expected, got)
            found[key] = path
    if not found:
        expected = "a directory with task_informative_text_img_train.tsv and the like"
        raise DataError.at(str(source), "files", expected, "none of them")
    return [(task, split, path) for (task, split), path in found.items()]
