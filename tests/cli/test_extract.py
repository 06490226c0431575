from __future__ import annotations

import csv
import subprocess
import sys

import h5py
import pytest

from fastmtl.cli.errors import BAD_INPUT, FAILED
from fastmtl.media.encoders.named import make_encoder
from tests.cli.cases import CPU
from tests.media.clips import write_clip, write_table

ENCODERS = ["--text", "hash?size=16"]
SMALL = ["--model", "hgfn", "--hidden-size", "4", "--epochs", "2", *CPU]


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A manifest of texts, in the working directory."""
    monkeypatch.chdir(tmp_path)
    rows = [
        {"name": f"n{i}", "text": "water rises" if i % 2 else f"sun {i}", "y_flood": i % 2}
        for i in range(30)
    ]
    return write_table(tmp_path / "clips.csv", rows)


@pytest.fixture
def run_of_texts(table, call):
    """A run that was trained on extracted features."""
    assert call("extract", table, "--out", "clips.h5", *ENCODERS)[0] == 0
    assert call("train", "--data", "clips.h5", "--out", "run", *SMALL)[0] == 0
    return "run"


def test_extract_says_what_it_wrote(table, call) -> None:
    code, out, err = call("extract", table, "--out", "clips.h5", *ENCODERS)
    assert (code, err) == (0, "")
    assert out == "30 clips in clips.h5; features: text 16\n"


def test_predictions_from_raw_files_are_those_from_their_features(run_of_texts, call) -> None:
    for source in (["--data", "clips.h5"], ["--media", "clips.csv"]):
        code, _, err = call("predict", run_of_texts, *source, "--out", f"{source[0]}.csv", *CPU)
        assert (code, err) == (0, "")
    with open("--data.csv") as one, open("--media.csv") as other:
        rows = list(csv.DictReader(other))
        assert list(csv.DictReader(one)) == rows
    assert [row["name"] for row in rows] == [f"n{i}" for i in range(30)]


def test_features_of_another_encoder_are_refused(run_of_texts, call) -> None:
    other = ["--text", "hash?size=16&ngrams=1"]
    assert call("extract", "clips.csv", "--out", "other.h5", *other)[0] == 0
    for command in (["evaluate", "run"], ["predict", "run", "--out", "p.csv"]):
        code, _, err = call(*command, "--data", "other.h5", *CPU)
        assert code == BAD_INPUT
        assert "x_text: expected features of the training data's encoder, hash?size=16" in err
    # Of those of which nobody says where they come from the sizes alone are checked.
    with h5py.File("other.h5", "a") as file:
        del file.attrs["fastmtl_features"]
    assert call("evaluate", "run", "--data", "other.h5", *CPU)[0] == 0


def test_an_encoder_that_has_changed_is_refused(run_of_texts, call, monkeypatch) -> None:
    def changed(modality, spec, setting):
        # As by weights that were replaced under the same name.
        encoder = make_encoder(modality, spec, setting)
        encoder.content["version"] += 1
        return encoder

    monkeypatch.setattr("fastmtl.media.extraction.make_encoder", changed)
    code, _, err = call("predict", "run", "--media", "clips.csv", "--out", "p.csv", *CPU)
    assert code == BAD_INPUT
    assert "expected features of the training data's encoder" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["extract", "clips.csv", "--out", "a.h5"], "encoders: expected some of video"),
        (["extract", "clips.csv", "--out", "a.h5", "--text", "has"], "did you mean 'hash'"),
        (["extract", "clips.csv", "--out", "a.h5", *ENCODERS, "--rate", "0"], "--rate: expected"),
        (["extract", "clips.csv", "--out", "a.h5", *ENCODERS, "--workers", "0"], "--workers: exp"),
        (["extract", "nowhere.csv", "--out", "a.h5", *ENCODERS], "expected an existing file"),
        (["extract", "clips.csv", "--out", "a.h5", "--video", "pixels"], "a column of video"),
        (["predict", "run", "--out", "p.csv"], "--data: expected either it or --media"),
        (
            ["predict", "run", "--out", "p.csv", "--media", "a", "--data", "b"],
            "--data: expected either it or --media",
        ),
        (["predict", "nowhere", "--out", "p.csv", "--media", "clips.csv"], "config.json: no such"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(table, call, arguments, message) -> None:
    code, out, err = call(*arguments)
    assert (code, out) == (BAD_INPUT, "")
    assert message in err
    assert err.count("\n") == 1


def test_runs_on_other_features_have_no_encoders(run_dir, table, call) -> None:
    code, _, err = call("predict", run_dir, "--media", table, "--out", "p.csv", *CPU)
    assert code == BAD_INPUT
    assert "was not trained on features of fastmtl extract" in err


def test_clips_without_sound_or_text_from_videos_to_a_report(tmp_path, monkeypatch, call) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    monkeypatch.chdir(tmp_path)
    for name, tone in (("loud", 440.0), ("mute", None)):
        write_clip(tmp_path / f"{name}.mp4", 1.0, tone=tone)
    rows = [
        {"name": f"n{i}", "video": ("mute.mp4", "loud.mp4")[i % 2], "text": f"sun {i % 3}"}
        for i in range(20)
    ]
    write_table(tmp_path / "clips.csv", [{**row, "y_a": i % 2} for i, row in enumerate(rows)])
    mute = [{"name": row["name"], "video": "mute.mp4"} for row in rows]
    write_table(tmp_path / "mute.csv", mute)
    write_table(tmp_path / "empty.csv", [{**row, "text": ""} for row in mute])
    encoders = ["--video", "pixels?grid=1", "--audio", "stft?bands=4", *ENCODERS]
    silent = "fastmtl: warning: audio: {} of 20 clips have no sound; it is missing in them\n"
    without = "fastmtl: warning: text: no clip has any; it is missing in all of them\n"
    code, _, err = call("extract", "clips.csv", "--out", "clips.h5", *encoders)
    assert (code, err) == (0, silent.format(10))
    assert call("train", "--data", "clips.h5", "--out", "run", *SMALL)[0] == 0
    for manifest in ("mute", "empty"):
        to = ["--media", f"{manifest}.csv", "--out", f"{manifest}.out", *CPU]
        assert call("predict", "run", *to)[::2] == (0, silent.format(20) + without)
    assert (tmp_path / "mute.out").read_text() == (tmp_path / "empty.out").read_text()
    to = ["--media", "clips.csv", "--out", "report.html", *CPU]
    assert call("report", "run", "--data", "clips.h5", *to)[0] == 0


def test_broken_files_by_name(tmp_path, monkeypatch, call) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.mp4").write_text("no film")
    write_clip(tmp_path / "good.mp4", 1.0)
    write_table(tmp_path / "clips.csv", [{"video": "good.mp4"}, {"video": "bad.mp4"}])
    command = ["extract", "clips.csv", "--out", "clips.h5", "--video", "pixels"]
    code, out, err = call(*command)
    assert (code, out) == (FAILED, "")
    assert err.startswith("fastmtl: clips.csv: line 3 (bad.mp4): video: bad.mp4: is broken, or no")
    assert err.endswith("the same command goes on from there)\n")
    assert err.count("\n") == 1
    code, out, err = call(*command, "--on-error", "skip")
    assert (code, out) == (0, "1 clip in clips.h5, 1 taken up, 1 left out; features: video 272\n")
    assert err.startswith("fastmtl: warning: left out clips.csv: line 3 (bad.mp4)")


def test_help_of_extract_needs_no_media_packages() -> None:
    check = (
        "import sys; sys.argv = ['fastmtl', 'extract', '--help']\n"
        "from fastmtl import cli\n"
        "try:\n    cli.main()\nexcept SystemExit:\n"
        "    print({'av', 'transformers'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")
