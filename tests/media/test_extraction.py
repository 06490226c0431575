from __future__ import annotations

import json
import signal

import h5py
import numpy as np
import pytest

import fastmtl
from fastmtl.data import DataError
from fastmtl.media import MediaError, Sampling, extract, read_manifest
from fastmtl.media.extraction import Extraction
from fastmtl.media.options import Options
from fastmtl.training import RunError
from fastmtl.training.lock import locked
from fastmtl.training.signals import Interrupted, StopRequest
from tests.media.clips import write_clip, write_sound, write_table

TEXT = {"text": "hash?size=16"}
ALL = {"video": "pixels?grid=2", "audio": "stft?bands=8", **TEXT}
ONE = Options(workers=1)


def texts(folder, count=30, **columns):
    rows = [
        {"name": f"n{i}", "text": f"word {i}", "y_even": i % 2, **columns} for i in range(count)
    ]
    return write_table(folder / "texts.csv", rows)


def features(path):
    with h5py.File(path) as file:
        return {name: file[name][()] for name in file}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A manifest of four clips: one is silent, one is without text, one is shorter than others."""
    pytest.importorskip("av", reason="PyAV is not installed")
    folder = tmp_path_factory.mktemp("clips")
    for name, seconds, tone in (
        ("a", 2.0, 300),
        ("b", 1.0, 900),
        ("c", 3.0, None),
        ("d", 2.0, 500),
    ):
        write_clip(folder / f"{name}.mp4", seconds, tone=tone)
    rows = [
        {"video": "a.mp4", "text": "one", "y_x": 1, "y_kind": "fire", "split": "train", "group": 1},
        {"video": "b.mp4", "text": "two", "y_x": 0, "y_kind": "", "split": "train", "group": 1},
        {
            "video": "c.mp4",
            "text": "six",
            "y_x": "",
            "y_kind": "flood",
            "split": "val",
            "group": "",
        },
        {"video": "d.mp4", "text": "", "y_x": 1, "y_kind": "fire", "split": "test", "group": "z"},
    ]
    return write_table(folder / "clips.csv", rows)


def test_what_a_file_holds(clips, tmp_path) -> None:
    done = extract(clips, tmp_path / "out.h5", ALL, sampling=Sampling(rate=2.0))
    assert (done.written, done.resumed, done.skipped) == (4, 0, [])
    assert done.warnings == ["audio: 1 of 4 clips have no sound; it is missing in them"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.h5"]
    found = features(tmp_path / "out.h5")
    assert found["offsets_video"].tolist() == [0, 4, 6, 12, 16]
    assert found["x_video"].shape == (16, 2 * 2 * 13 + 64)
    # What is missing is NaN: a step of the silent clip's sound, and the text that was not given.
    assert found["offsets_audio"].tolist() == [0, 2, 3, 4, 6]
    assert np.isnan(found["x_audio"]).all(1).tolist() == [False, False, False, True, False, False]
    assert np.isnan(found["x_text"]).all(1).tolist() == [False, False, False, True]
    np.testing.assert_array_equal(found["y"], [[1], [0], [np.nan], [1]])
    assert found["y_kind"].tolist() == [0, -1, 1, 0]
    names = ("label_names", "class_names_kind", "sample_names", "split", "group")
    assert [[each.decode() for each in found[name]] for name in names] == [
        ["x"],
        ["fire", "flood"],
        ["a.mp4", "b.mp4", "c.mp4", "d.mp4"],
        ["train", "train", "val", "test"],
        ["1", "1", "c.mp4", "z"],
    ]
    with h5py.File(tmp_path / "out.h5") as file:
        said = json.loads(file.attrs["fastmtl_features"])
    assert said["video"]["encoder"] == "pixels?grid=2"
    assert said["video"]["settings"] == {"rate": 2.0, "count": None, "seconds": 600.0}
    assert said["audio"]["settings"] == {"seconds": 600.0}


def test_sound_and_text_of_files_of_their_own(tmp_path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    write_sound(tmp_path / "a.wav", 2.0)
    (tmp_path / "a.txt").write_text("words")
    encoders = {"audio": "stft?bands=8", **TEXT}
    # Of its video nothing is read.
    table = write_table(
        tmp_path / "clips.csv", [{"video": "absent.mp4", "audio": "a.wav", "text_file": "a.txt"}]
    )
    assert extract(table, tmp_path / "out.h5", encoders).written == 1
    assert features(tmp_path / "out.h5")["x_audio"].shape == (2, 16)


def test_it_goes_on_where_it_stopped(tmp_path) -> None:
    table = texts(tmp_path)
    extract(table, tmp_path / "whole.h5", TEXT)
    out = tmp_path / "out.h5"
    stop, seen = StopRequest(), []

    def follow(done):
        seen.append(done)
        if done >= 16:
            stop.signal = signal.SIGTERM

    with pytest.raises(Interrupted):
        Extraction(read_manifest(table), out, TEXT, options=ONE).run(follow, stop)
    assert seen == [0, 8, 16]
    assert not out.exists()
    again = []
    done = Extraction(read_manifest(table), out, TEXT, options=ONE).run(again.append)
    assert (done.written, done.resumed, again) == (30, 16, [16, 24, 30])
    whole, resumed = features(tmp_path / "whole.h5"), features(out)
    assert whole.keys() == resumed.keys()
    for name in whole:
        np.testing.assert_array_equal(whole[name], resumed[name])
    assert not (tmp_path / "out.h5.parts").exists()


def test_what_another_extraction_began_is_not_mixed_in(tmp_path) -> None:
    table, out = texts(tmp_path), tmp_path / "out.h5"
    stop = StopRequest()
    stop.signal = signal.SIGTERM
    with pytest.raises(Interrupted):
        Extraction(read_manifest(table), out, TEXT, options=ONE).run(stop=stop)
    other = {"text": "hash?size=8"}
    with pytest.raises(MediaError, match=r"begun with another encoders \(--overwrite"):
        extract(table, out, other)
    assert extract(table, out, other, overwrite=True).resumed == 0
    assert features(out)["x_text"].shape == (30, 8)


def test_one_at_a_time(tmp_path) -> None:
    table, out = texts(tmp_path), tmp_path / "out.h5"
    (tmp_path / "out.h5.parts").mkdir()
    with locked(tmp_path / "out.h5.parts"), pytest.raises(RunError, match="in use by process"):
        extract(table, out, TEXT)


@pytest.fixture
def broken(tmp_path):
    pytest.importorskip("av", reason="PyAV is not installed")
    (tmp_path / "bad.mp4").write_bytes(b"no film " * 1000)
    write_clip(tmp_path / "good.mp4", 1.0)
    rows = [{"name": n, "video": f"{n}.mp4", "text": n} for n in ("good", "bad", "absent", "good")]
    return write_table(tmp_path / "clips.csv", rows)


def test_a_broken_clip_stops_it_by_name(broken, tmp_path) -> None:
    with pytest.raises(MediaError, match=r"clips.csv: line 4 \(absent\): video: .*no such file$"):
        extract(broken, tmp_path / "out.h5", ALL)
    write_clip(tmp_path / "absent.mp4", 1.0)
    with pytest.raises(MediaError, match=r"clips.csv: line 3 \(bad\): video: .*no media file"):
        extract(broken, tmp_path / "out.h5", ALL)
    # Mended, it goes on.
    write_clip(tmp_path / "bad.mp4", 1.0)
    done = extract(broken, tmp_path / "out.h5", ALL)
    assert (done.written, done.resumed) == (4, 1)


def test_broken_clips_are_left_out_where_asked(broken, tmp_path) -> None:
    done = extract(broken, tmp_path / "out.h5", ALL, options=Options(on_error="skip"))
    assert done.written == 2
    assert [line.split(": ")[1] for line in done.skipped] == ["line 3 (bad)", "line 4 (absent)"]
    assert features(tmp_path / "out.h5")["sample_names"].tolist() == [b"good", b"good"]


def test_nothing_left_is_an_error_and_no_file(broken, tmp_path) -> None:
    (tmp_path / "good.mp4").write_text("nothing")
    with pytest.raises(MediaError, match=r"no clip can be used \(.*line 2 \(good\)"):
        extract(broken, tmp_path / "out.h5", ALL, options=Options(on_error="skip"))
    assert not (tmp_path / "out.h5").exists()


def test_a_clip_that_has_none_of_what_is_asked_for(tmp_path) -> None:
    rows = [{"text": "a", "audio": ""}, {"text": "", "audio": "a.wav"}]
    table = write_table(tmp_path / "clips.csv", rows)
    with pytest.raises(MediaError, match=r"line 3 \(a.wav\): has no text"):
        extract(table, tmp_path / "out.h5", TEXT)


def test_what_no_clip_has_is_missing_in_all(tmp_path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    write_clip(tmp_path / "mute.mp4", 1.0, tone=None)
    table = write_table(tmp_path / "clips.csv", [{"video": "mute.mp4", "text": ""}] * 2)
    done = extract(table, tmp_path / "out.h5", ALL)
    assert done.written == 2
    assert done.warnings == [
        "audio: 2 of 2 clips have no sound; it is missing in them",
        "text: no clip has any; it is missing in all of them",
    ]
    found = features(tmp_path / "out.h5")
    assert not np.isnan(found["x_video"]).any()
    assert np.isnan(found["x_audio"]).all()
    assert np.isnan(found["x_text"]).all()


@pytest.mark.parametrize(
    ("encoders", "out", "message"),
    [
        ({}, "out.h5", "encoders: expected some of video, audio, text, got none"),
        ({"sound": "stft"}, "out.h5", "expected some of video, audio, text, got sound"),
        ({"video": "pixels"}, "out.h5", "video: expected a column of video"),
        (TEXT, "out.npz", r"expected a name in .h5 or .hdf5, got '.npz'"),
        (TEXT, "nowhere/out.h5", "a file in a writable directory"),
        (TEXT, "there.h5", r"expected a new file, got one that is there \(overwrite"),
    ],
)
def test_what_cannot_be_done(tmp_path, encoders, out, message) -> None:
    table = texts(tmp_path, 3)
    (tmp_path / "there.h5").touch()
    with pytest.raises((MediaError, DataError), match=message):
        extract(table, tmp_path / out, encoders)
    assert {path.name for path in tmp_path.iterdir()} == {"texts.csv", "there.h5"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"workers": 0},
        {"batch_size": 0},
        {"precision": "int8"},
        {"on_error": "ignore"},
        {"timeout": 0},
    ],
)
def test_options_that_cannot_be(wrong) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected"):
        Options(**wrong)


def test_features_of_another_encoder_are_told_from_those_of_this(tmp_path) -> None:
    table = texts(tmp_path)
    extract(table, tmp_path / "a.h5", TEXT)
    extract(table, tmp_path / "b.h5", {"text": "hash?size=16&ngrams=1"})
    data = fastmtl.data.load(tmp_path / "a.h5")
    assert data.encoders["text"]["encoder"] == "hash?size=16"
    assert data.subset("train").encoders == data.encoders
    assert data.with_modalities(["text"]).encoders == data.encoders
    with pytest.raises(
        DataError, match=r"x_text: expected .* hash\?size=16 \(.*got hash.*ngrams=1"
    ):
        fastmtl.data.load(tmp_path / "a.h5", test=tmp_path / "b.h5")
    both = fastmtl.data.load(tmp_path / "a.h5", test=tmp_path / "a.h5")
    assert both.encoders == data.encoders


@pytest.mark.parametrize("said", ["no JSON", "[]", '{"text": {}}', '{"text": 3}', 7])
def test_a_file_that_says_nonsense_of_its_encoders(tmp_path, said) -> None:
    extract(texts(tmp_path), tmp_path / "a.h5", TEXT)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file.attrs["fastmtl_features"] = said
    with pytest.raises(DataError, match="fastmtl_features: expected the encoders"):
        fastmtl.data.load(tmp_path / "a.h5")
