from __future__ import annotations

import base64
from dataclasses import replace

import pytest
import torch

from fastmtl.data import DataError
from fastmtl.report import Sample
from fastmtl.report.media import LETTERS, captions_of, frames_of
from tests.media.clips import write_clip, write_table

pytest.importorskip("av", reason="PyAV is not installed")


def sample(name):
    return Sample(0, name, torch.tensor([0.5]), torch.tensor([1.0]), {}, {}, ())


def test_pictures_of_clips_that_can_be_read(tmp_path, many_labels):
    write_clip(tmp_path / "red.mp4")
    (tmp_path / "broken.mp4").write_bytes(b"none")
    rows = [{"video": "red.mp4", "text": ""}, {"video": "broken.mp4", "text": ""}]
    manifest = write_table(tmp_path / "clips.csv", [*rows, {"video": "", "text": "waves"}])
    data = replace(many_labels, sample_names=["red.mp4"] * len(many_labels))
    frames = frames_of(manifest, data)
    found = frames(sample("red.mp4"), [0.1, 0.5, 0.9])
    assert len(found) == 3
    for source in found:
        kind, _, content = source.partition(",")
        assert kind == "data:image/jpeg;base64"
        assert base64.b64decode(content).startswith(b"\xff\xd8")
        assert len(content) < 10_000
    assert frames(sample("broken.mp4"), [0.5]) == []
    assert frames(sample("other.mp4"), [0.5]) == []
    with pytest.raises(DataError, match="name: expected names of samples of"):
        frames_of(manifest, many_labels)


def test_captions_of_clips_with_a_text(tmp_path):
    (tmp_path / "long.txt").write_text("water " * 500)
    rows = [
        {"name": "one", "text": "water\nrises", "text_file": ""},
        {"name": "two", "text": "", "text_file": "long.txt"},
        {"name": "three", "text": "", "text_file": "none.txt"},
    ]
    captions = captions_of(write_table(tmp_path / "clips.csv", rows))
    assert captions["one"] == "water rises"
    assert len(captions["two"]) <= LETTERS
    assert captions.keys() == {"one", "two"}
