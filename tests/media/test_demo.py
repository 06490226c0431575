"""The whole way: from raw videos to a trained model, its figures, and what it says of new ones."""

from __future__ import annotations

import csv
import json

import pytest

from tests.cli.conftest import call
from tests.media.clips import CONCEPTS, write_set

pytest.importorskip("av", reason="PyAV is not installed")
__all__ = ["call"]

ENCODERS = ["--video", "pixels", "--audio", "stft", "--text", "hash", "--rate", "4"]
TRAINING = ["--model", "hgfn", "--hidden-size", "32", "--lr", "0.003", "--epochs", "60"]


@pytest.mark.slow
def test_from_videos_to_concepts(tmp_path, call, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path, 60)

    def done(*arguments):
        code, out, err = call(*arguments)
        assert code == 0, err
        return out

    shown = done("extract", "clips.csv", "--out", "clips.h5", *ENCODERS)
    assert "60 clips in clips.h5" in shown
    done("train", "--data", "clips.h5", "--out", "run", *TRAINING, "--device", "cpu")
    metrics = json.loads(done("evaluate", "run", "--data", "clips.h5", "--json"))
    assert metrics["test"]["map"] > 0.9
    # Clips that it has not seen, of which it has the raw files alone.
    (tmp_path / "new").mkdir()
    write_set(tmp_path / "new", 20, seed=1)
    done("predict", "run", "--media", "new/clips.csv", "--out", "new.csv")
    predicted, right = _rows("new.csv"), _rows("new/clips.csv")
    assert [row["name"] for row in predicted] == [row["video"] for row in right]
    pairs = [
        (p[f"decision/{c}"], r[f"y_{c}"])
        for p, r in zip(predicted, right, strict=True)
        for c in CONCEPTS
    ]
    assert sum(one == other for one, other in pairs) > 0.8 * len(pairs)
    done("report", "run", "--data", "clips.h5", "--media", "clips.csv", "--out", "report.html")
    assert "data:image/jpeg" in (tmp_path / "report.html").read_text(encoding="utf-8")


def _rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
