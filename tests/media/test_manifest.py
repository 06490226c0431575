from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastmtl.data import DataError
from fastmtl.media import read_manifest

TABLE = """\
name,video,text,y_sea,y_kind,split,group
first,a.mp4, waves ,1,storm,train,g
,b/b.mp4,,,,test,
"""


def written(folder, text, name="clips.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table(tmp_path) -> None:
    manifest = read_manifest(written(tmp_path, TABLE))
    first, second = manifest.clips
    assert manifest.label_names == ["sea"]
    assert manifest.class_names == {"kind": ["storm"]}
    assert first.sources == {"video": tmp_path / "a.mp4", "text": "waves"}
    assert (first.name, first.line, first.split, first.group) == ("first", 2, "train", "g")
    assert (second.name, second.labels, second.classes) == ("b/b.mp4", [None], {})
    # A clip without a group is one of its own.
    assert second.group == "b/b.mp4"


@pytest.mark.parametrize("name", ["clips.tsv", "clips.jsonl", "CLIPS.NDJSON"])
def test_the_other_formats_say_the_same(tmp_path, name) -> None:
    expected = read_manifest(written(tmp_path, TABLE))
    header, *rows = (line.split(",") for line in TABLE.splitlines())
    lines = ["\t".join(row) for row in (header, *rows)]
    if "tsv" not in name:
        objects = [dict(zip(header, row, strict=True)) for row in rows]
        objects[0]["y_sea"] = True
        objects[1]["y_sea"] = None
        del objects[1]["text"]
        lines = ["", *(json.dumps(each) for each in objects)]
    got = read_manifest(written(tmp_path, "\n".join(lines), name))
    assert [vars(clip) for clip in got.clips] == [vars(clip) for clip in expected.clips]
    assert (got.label_names, got.class_names) == (expected.label_names, expected.class_names)


def test_text_in_files_and_sound_alone(tmp_path) -> None:
    manifest = read_manifest(written(tmp_path, "audio,text_file\na.wav,a.txt\n"))
    assert manifest.clips[0].sources == {"audio": tmp_path / "a.wav", "text": tmp_path / "a.txt"}


def test_numbers_beyond_0_and_1_are_classes_in_their_order(tmp_path) -> None:
    rows = "".join(f"a,{value}\n" for value in (10, 2, 1, 0, ""))
    manifest = read_manifest(written(tmp_path, f"text,y_level\n{rows}"))
    assert manifest.class_names == {"level": ["0", "1", "2", "10"]}
    assert manifest.label_names == []


def test_a_column_that_means_nothing_is_told(tmp_path) -> None:
    (warning,) = read_manifest(written(tmp_path, "text,author\na,b\n")).warnings
    assert "'author' is unknown and was not read" in warning


def test_labels_need_not_be_read(tmp_path) -> None:
    manifest = read_manifest(written(tmp_path, "text,y_sea\na,0.3\n"), labels=False)
    assert (manifest.label_names, manifest.warnings) == ([], ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty file"),
        ("\n", "columns|rows"),
        ("video\n", "rows: expected at least one, got none"),
        ("vidoe,y_a\na,1\n", "columns: .*did you mean 'video'"),
        ("text,text\na,b\n", "'text' more than once"),
        ("text,y_a\na\n", "rows: expected 2 cells, got 1 in line 2"),
        ("text,y_a\na,0.5\n", "y_a: expected 0, 1, the name of a class, or nothing, got '0.5' in"),
        ("text,split\na,training\n", "split: .*'training' in line 2"),
        ("text,split\na,\n", "split: .*'' in line 2"),
        ("video,y_a\n,1\n", "expected a file or a text, got neither in line 2"),
        ("text,text_file\na,b\n", "either text or text_file"),
        ('text\n"a\n', "a broken one"),
        ("video\na\0b\n", "a broken one|the path of a file"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, text, message) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_manifest(written(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1: expected a JSON object"),
        ("[" * 100_000, "line 1: expected a JSON object"),
        ("[1]", "line 1: expected a JSON object, got list"),
        ('{"text": "a"}\n{"text": ["a"]}', "text in line 2: expected a string"),
    ],
)
def test_lines_that_cannot_be_used(tmp_path, text, message) -> None:
    with pytest.raises(DataError, match=message):
        read_manifest(written(tmp_path, text, "clips.jsonl"))


def test_other_files(tmp_path) -> None:
    with pytest.raises(
        DataError, match=r"\.csv, \.tsv, \.jsonl or \.ndjson, got the ending '\.xls'"
    ):
        read_manifest(written(tmp_path, TABLE, "clips.xls"))
    path = tmp_path / "clips.csv"
    path.write_bytes(b"text\n\xff\xfe\n")
    with pytest.raises(DataError, match="a broken one"):
        read_manifest(path)
    with pytest.raises(DataError, match="an existing file"):
        read_manifest(Path("nowhere.csv"))
