from __future__ import annotations

import pytest

from fastmtl.training.checkpoint import read_json
from tests.cli.cases import FLAT, SMALL


def test_options_come_from_a_preset_a_file_and_the_command_in_turn(call, tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("lr = 0.01\nepochs = 1\nbatch-size = 8\n")
    arguments = ["--preset", "paper", "--config", path, "--data", FLAT, *SMALL, "--lr", "0.02"]
    assert call("train", *arguments, "--out", tmp_path / "run")[0] == 0
    stored = read_json(tmp_path / "run/config.json")["train"]
    expected = {"lr": 0.02, "epochs": 2, "batch_size": 8, "monitor": "loss"}
    assert expected.items() <= stored.items()


def test_a_printed_file_makes_the_same_run(call, tmp_path):
    options = ["--data", FLAT, *SMALL, "--clip-grad-norm", "0.5"]
    code, text, err = call("train", *options, "--print-config")
    assert (code, err) == (0, "")
    (tmp_path / "run.toml").write_text(text)
    assert not (tmp_path / "a").exists()
    assert call("train", *options, "--out", tmp_path / "a")[0] == 0
    assert call("train", "--config", tmp_path / "run.toml", "--out", tmp_path / "b")[0] == 0
    one, other = (read_json(tmp_path / name / "config.json")["train"] for name in "ab")
    assert one == other
    code, resumed, _ = call("train", "--out", tmp_path / "a", "--resume", "--print-config")
    assert (code, resumed) == (0, text)


@pytest.mark.parametrize(
    ("text", "options", "named"),
    [
        ("lr = 0", [], "run.toml: lr: expected a finite number > 0, got 0"),
        ("theta = 1", [], "--theta: expected only with model hgfn"),
        ("", ["--config", "absent.toml"], "absent.toml"),
        ("", ["--out"], "--out"),
    ],
)
def test_a_wrong_file_is_one_line(call, tmp_path, text, options, named):
    (tmp_path / "run.toml").write_text(text)
    out = [] if options == ["--out"] else ["--out", tmp_path / "run"]
    arguments = ["--config", tmp_path / "run.toml", "--data", FLAT, *out]
    code, _, err = call("train", *arguments, *(options if out else []))
    assert (code, err.count("\n")) == (2, 1)
    assert named in err
    assert not (tmp_path / "run").exists()
