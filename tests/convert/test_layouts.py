"""Published layouts become data files and manifests; what is wrong with them is one line."""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastmtl.convert import LAYOUTS, convert
from fastmtl.data import DataError, load
from tests.convert.layouts import (
    BAGS,
    crisismmd,
    example,
    nuswide,
    sequence_example,
    tfrecord,
    video_folders,
    youtube8m,
)

RNG = np.random.default_rng(0)


def manifest(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_crisismmd_is_a_manifest_of_three_classes(tmp_path: Path) -> None:
    source, out = crisismmd(tmp_path / "crisis"), tmp_path / "m.csv"
    told = convert("crisismmd", source, out)
    assert told == [
        "3 images with texts, of the tasks informative, damage",
        "2 of them are in another split in another task",
        "2 image files are not there",
    ]
    rows = {row["name"]: row for row in manifest(out)}
    assert list(rows["1_0"]) == [
        "name", "video", "text", "y_informative", "y_damage", "split", "group",
    ]  # fmt: skip
    assert rows["1_0"]["video"] == "crisis/data_image/1_0.jpg"
    assert rows["1_0"]["text"] == '"Water everywhere, 1'
    assert {n: rows[n]["y_informative"] for n in rows} == {
        "1_0": "informative", "1_1": "not_informative", "2_0": "informative",
    }  # fmt: skip
    assert {n: rows[n]["y_damage"] for n in rows} == {
        "1_0": "", "1_1": "", "2_0": "severe_damage",
    }  # fmt: skip
    # What any task tests, none trains on.
    assert {n: rows[n]["split"] for n in rows} == {"1_0": "train", "1_1": "test", "2_0": "val"}
    assert rows["1_1"]["group"] == rows["1_0"]["group"] == "1"


def test_crisismmd_has_its_images_elsewhere(tmp_path: Path) -> None:
    source = crisismmd(tmp_path / "splits", "_agreed_lab")
    images = tmp_path / "images"
    assert convert("crisismmd", source, tmp_path / "m.csv", images=images)[-1].startswith("3 image")
    assert manifest(tmp_path / "m.csv")[0]["video"].startswith("images/data_image/1_")
    crisismmd(tmp_path / "splits" / "all")
    with pytest.raises(DataError, match="files: expected one division"):
        convert("crisismmd", source, tmp_path / "n.csv")


def test_a_folder_a_video_is_a_manifest(tmp_path: Path) -> None:
    source, out = video_folders(tmp_path / "videos"), tmp_path / "m.csv"
    told = convert("video-folders", source, out)
    assert told == ["2 videos, 2 concepts", f"1 folders are not in {source / 'concepts.csv'}"]
    assert manifest(out) == [
        {
            "name": "a", "video": "videos/a/clip.MP4", "audio": "videos/a/sound.wav",
            "text": "Water everywhere", "split": "train", "y_flood": "1", "y_fire": "0",
        },
        {
            "name": "b c", "video": "videos/b c/clip.MP4", "audio": "", "text": "",
            "split": "test", "y_flood": "", "y_fire": "1",
        },
    ]  # fmt: skip


def test_manifests_are_read_by_extract(tmp_path: Path) -> None:
    read = pytest.importorskip("fastmtl.media.manifest").read_manifest
    convert("crisismmd", crisismmd(tmp_path / "c"), tmp_path / "c.csv")
    found = read(tmp_path / "c.csv")
    assert found.warnings == ()
    assert sorted(clip.name for clip in found.clips) == ["1_0", "1_1", "2_0"]
    assert found.class_names["informative"] == ["informative", "not_informative"]
    convert("video-folders", video_folders(tmp_path / "v"), tmp_path / "v.csv")
    found = read(tmp_path / "v.csv")
    assert found.warnings == ()
    assert found.label_names == ["flood", "fire"]
    assert found.clips[0].sources["text"] == "Water everywhere"


def test_nuswide_object_is_a_file_of_modalities(tmp_path: Path) -> None:
    source, out = nuswide(tmp_path / "nus"), tmp_path / "a.h5"
    told = convert("nus-wide-object", source, out)
    assert told == ["6 train, 4 test images, 2 kinds of features, 2 concepts"]
    data = load(out, for_training=False)
    assert data.modalities == {"bow_int": (2,), "ch": (3,)}
    assert data.label_names == ["bear", "sky dive"]
    assert len(data.indices("test")) == 4
    for part, first in (("Train", 0), ("Test", 6)):
        table = np.loadtxt(source / "features" / f"{part}_Normalized_CH.dat")
        stop = first + len(table)
        assert torch.equal(data.tensors()["ch"][first:stop], torch.tensor(table).float())
        labels = np.loadtxt(source / f"Labels_sky dive_{part}.txt")
        assert data.y[first:stop, 1].tolist() == labels.tolist()


def test_bags_are_sequences(tmp_path: Path) -> None:
    (tmp_path / "b.arff").write_text(BAGS)
    told = convert("mulan-bags", tmp_path / "b.arff", tmp_path / "a.h5")
    assert told == ["3 bags of 2 features, 2 labels"]
    data = load(tmp_path / "a.h5", for_training=False)
    assert data.label_names == ["flood", "fire"]
    assert data.sample_names == ["b1", "b2", "b 3"]
    assert isinstance(data.lengths, torch.Tensor)
    assert data.lengths.tolist() == [2, 1, 3]
    assert torch.equal(data.tensors()["x"][0, :2], torch.tensor([[0.5, 1], [-2, 0.3]]))
    expected = torch.tensor([[1, 0], [0, float("nan")], [1, 1]])
    torch.testing.assert_close(data.y, expected, equal_nan=True)


def test_bags_have_a_test_file_and_a_list_of_labels_beside_them(tmp_path: Path) -> None:
    (tmp_path / "b-train.arff").write_text(BAGS)
    (tmp_path / "b-test.arff").write_text(BAGS.rpartition("\n'b 3'")[0])
    (tmp_path / "b.xml").write_text('<labels><label name="fire"/></labels>')
    convert("mulan-bags", tmp_path / "b-train.arff", tmp_path / "a.h5", dtype="float16")
    data = load(tmp_path / "a.h5", for_training=False)
    assert data.label_names == ["fire"]
    assert len(data) == 5
    assert len(data.indices("test")) == 2


def test_youtube8m_by_video(tmp_path: Path) -> None:
    source = youtube8m(tmp_path / "yt", frames=False)
    told = convert("youtube-8m", source, tmp_path / "a.h5")
    assert told == ["4 videos from 3 files, 3 labels"]
    data = load(tmp_path / "a.h5", for_training=False)
    assert data.modalities == {"audio": (2,), "rgb": (3,)}
    assert data.label_names == ["Game", "Car (1)", "Car (2)"]
    # In the order of the files.
    assert data.sample_names == ["testAB0", "train000", "train001", "validate030"]
    assert data.split.tolist() == [2, 0, 0, 1]
    assert data.y[0].isnan().all()
    assert data.y[1:].tolist() == [[1, 0, 0], [0, 1, 1], [0, 1, 0]]
    assert data.tensors()["rgb"][2].tolist() == [0.5] * 3


def test_youtube8m_by_frame_is_dequantised(tmp_path: Path) -> None:
    source = youtube8m(tmp_path / "yt", frames=True)
    convert("youtube-8m", source, tmp_path / "a.h5", labels=2)
    data = load(tmp_path / "a.h5", for_training=False)
    assert data.modalities == {"audio": (3, 2), "rgb": (3, 3)}
    assert data.label_names == ["Game", "Car (1)"]
    lengths = data.lengths_of("rgb")
    assert lengths is not None
    assert lengths.tolist() == [2, 2, 3, 2]
    # 4 / 255 a level, from -2, and half a level of 256.
    expected = [q * 4 / 255 - 2 + 4 / 512 for q in (1, 255, 128)]
    assert data.tensors()["rgb"][2, 2].tolist() == pytest.approx(expected, abs=1e-6)


def test_records_of_one_file_need_no_split_and_no_names(tmp_path: Path) -> None:
    content = example(id=[b"a"], labels=[3861], mean_rgb=np.ones(2))
    (tmp_path / "some.tfrecord").write_bytes(tfrecord(content))
    convert("youtube-8m", tmp_path / "some.tfrecord", tmp_path / "a.h5")
    data = load(tmp_path / "a.h5", for_training=False)
    assert data.num_tasks == 3862
    assert data.y[0].nonzero().tolist() == [[3861]]


Make = Callable[[Path], Path]


def _edited(make: Make, name: str, old: str, new: str) -> Make:
    """A layout with one text in one of its files replaced."""

    def edited(folder: Path) -> Path:
        source = make(folder)
        path = source / name if source.is_dir() else source
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        return source

    return edited


def _bags(folder: Path) -> Path:
    folder.mkdir()
    (folder / "b.arff").write_text(BAGS)
    return folder / "b.arff"


def _videos(folder: Path) -> Path:
    return youtube8m(folder, frames=True)


def _records(content: bytes) -> Make:
    def make(folder: Path) -> Path:
        folder.mkdir()
        (folder / "a.tfrecord").write_bytes(tfrecord(content))
        return folder

    return make


TSV = "task_damage_text_img_train.tsv"
BAD: list[tuple[str, Make, str]] = [
    ("crisismmd", nuswide, "files: expected a directory with task_informative"),
    ("crisismmd", _edited(crisismmd, TSV, "tweet_text", "text"), "a column 'tweet_text', got"),
    ("crisismmd", _edited(crisismmd, TSV, "\ta\tb", "\ta"), "expected 8 cells, got 7 in line 2"),
    ("crisismmd", _edited(crisismmd, TSV, "\t2_0\t", "\t\t"), "image_id: expected a name, got"),
    ("video-folders", crisismmd, "table: expected one .csv or .tsv with the concepts"),
    ("video-folders", _edited(video_folders, "concepts.csv", "b c", "x"), "a folder in .* got 'x'"),
    ("video-folders", _edited(video_folders, "concepts.csv", "b c", "a"), "every folder once"),
    ("video-folders", _edited(video_folders, "concepts.csv", "b c", "left"), r"any in \.mp4"),
    ("video-folders", _edited(video_folders, "concepts.csv", ",0", ",2"), "fire: expected 0, 1 or"),
    ("video-folders", _edited(video_folders, "concepts.csv", "train", "dev"), "split: expected tr"),
    ("nus-wide-object", crisismmd, "features: expected files such as Train_Normalized_CH.dat"),
    ("nus-wide-object", _edited(nuswide, "Labels_bear_Test.txt", "\n", " 1\n"), "label of 0 or 1"),
    ("nus-wide-object", _edited(nuswide, "Labels_bear_Test.txt", "\n", "x\n"), "expected numbers"),
    (
        "nus-wide-object",
        _edited(nuswide, "features/Test_Normalized_CH.dat", " \n", " 1 1\n"),
        r"x_ch of row 6: expected numbers of shape \(3,\), got float64 of shape \(5,\)",
    ),
    ("mulan-bags", _edited(_bags, "", "relational", "numeric"), "header: expected @attri|relat"),
    ("mulan-bags", _edited(_bags, "", "7,8", "7,8,9"), "instances of 2 features, got .* line 13"),
    ("mulan-bags", _edited(_bags, "", "7,8", "7,x"), "bag: expected numbers, got .* in line 13"),
    ("mulan-bags", _edited(_bags, "", "outdoor,?", "outdoor"), "5 values in a row, got 4"),
    ("mulan-bags", _edited(_bags, "", "outdoor,?", "outdoor,2"), "expected 0, 1 or .*got '2'"),
    ("mulan-bags", _edited(_bags, "", "@data", "@date"), "header: expected @attribute, @end"),
    ("youtube-8m", crisismmd, "a directory of .tfrecord files"),
    ("youtube-8m", _edited(_videos, "vocabulary.csv", "Name", "Label"), "a column 'Name'"),
    ("youtube-8m", _edited(_videos, "vocabulary.csv", "2,3", "7,3"), "Index: expected 0 to 2"),
    ("youtube-8m", _edited(_videos, "vocabulary.csv", "2,3,Car\n", ""), "labels from 0 to 1"),
    ("youtube-8m", _records(b"no protobuf"), "record 0: expected a tf.Example"),
    ("youtube-8m", _records(example(id=[b"a"])), "record 0: expected mean_rgb .* got id"),
    (
        "youtube-8m",
        _records(sequence_example({"id": [b"a"]}, rgb=[b"\x00\x01", b"\x00"])),
        "rgb of record 0: expected frames of one size",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "make", "message"), BAD)
def test_what_is_wrong_is_one_line_and_leaves_no_file(
    tmp_path: Path, layout: str, make: Make, message: str
) -> None:
    source = make(tmp_path / "source")
    out = tmp_path / ("a.csv" if layout in ("crisismmd", "video-folders") else "a.h5")
    with pytest.raises(DataError, match=message) as caught:
        convert(layout, source, out)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    ("layout", "make"),
    [
        ("crisismmd", crisismmd),
        ("video-folders", video_folders),
        ("nus-wide-object", nuswide),
        ("mulan-bags", _bags),
        ("youtube-8m", _videos),
    ],
)
def test_damage_is_told_or_harmless(tmp_path: Path, layout: str, make: Make) -> None:
    source = make(tmp_path / "source")
    files = [p for p in source.rglob("*") if p.is_file()] if source.is_dir() else [source]
    rng, out = random.Random(0), tmp_path / ("a.csv" if layout[0] in "cv" else "a.h5")
    for _ in range(60):
        path = rng.choice([each for each in files if each.stat().st_size])
        whole = path.read_bytes()
        content = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content[: rng.randint(len(content) // 2, len(content))])
        with suppress(DataError):
            convert(layout, source, out, overwrite=True)
        path.write_bytes(whole)
    convert(layout, source, out, overwrite=True)


def test_layouts_and_options_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"one of .* 'crisis' .did you mean 'crisismmd'"):
        convert("crisis", tmp_path, tmp_path / "a.csv")
    with pytest.raises(DataError, match="table: expected none for crisismmd"):
        convert("crisismmd", tmp_path, tmp_path / "a.csv", table="a.csv")
    for layout in LAYOUTS:
        with pytest.raises(DataError, match="a path where nothing is"):
            convert(layout, tmp_path / "absent", tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["a.h5", "absent/a.csv", "old.csv"])
def test_a_manifest_that_cannot_be_written_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "old.csv").write_text("old")
    with pytest.raises(DataError, match=re.escape(f"{name}: path: expected")):
        convert("crisismmd", crisismmd(tmp_path / "c"), tmp_path / name)
    assert (tmp_path / "old.csv").read_text() == "old"


def test_the_command_tells_what_was_found(call: Any, tmp_path: Path) -> None:
    source, out = nuswide(tmp_path / "nus"), tmp_path / "a.h5"
    code, told, err = call("convert", "nus-wide-object", source, "--out", out)
    assert (code, err) == (0, "")
    assert told.splitlines() == [
        "6 train, 4 test images, 2 kinds of features, 2 concepts",
        f"written to {out}",
    ]
    code, _, err = call("convert", "nus-wide-object", source, "--out", out)
    assert (code, err.count("\n")) == (2, 1)
    assert "one that is there" in err
    code, _, err = call("convert", "nus-wide-object", source, "--out", out, "--labels", 3)
    assert (code, err.count("\n")) == (2, 1)
    assert "--labels: expected none for nus-wide-object" in err
