"""Multi-class tasks from the command line: trained, measured, predicted, exported."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import pytest

from fastmtl.training.checkpoint import load_tensors, read_json
from tests.cli.cases import CPU, SMALL

CRISIS = "synthetic:crisis?posts=100&text=5&image=4&missing=0.1"
HGFN = ["--model", "hgfn", *SMALL]


@pytest.fixture
def posts(tmp_path):
    """A table of a binary task and a multi-class one."""
    kinds = ["mild", "severe", "none", ""]
    lines = [f"{i % 7},{i % 4},{i % 2},{kinds[i % 4]}" for i in range(60)]
    (tmp_path / "posts.csv").write_text("\n".join(["a,b,y_odd,class_damage", *lines]) + "\n")
    return tmp_path / "posts.csv"


def test_a_table_is_trained_measured_and_predicted(call, posts, tmp_path):
    run, out = tmp_path / "run", tmp_path / "p.csv"
    code, told, err = call("train", "--data", posts, "--out", run, *SMALL)
    assert (code, err) == (0, "")
    assert "1 label, 1 multi-class task, samples: 36 train" in told
    assert "by multi-class task, test" in told
    assert told.count("macro-F1 ") >= 3
    code, told, _ = call("evaluate", run, "--data", posts, "--json", *CPU)
    metrics = read_json(run / "metrics.json")
    del metrics["training"]
    assert (code, json.loads(told)) == (0, metrics)
    told = f"60 samples, 1 label, 1 multi-class task in {out}\n"
    assert call("predict", run, "--data", posts, "--out", out, *CPU) == (0, told, "")
    with open(out, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "index",
        "probability/odd",
        *(f"probability/damage/{name}" for name in ("mild", "none", "severe")),
        "decision/odd",
        "decision/damage",
    ]
    for row in rows:
        p = {n: float(row[f"probability/damage/{n}"]) for n in ("mild", "none", "severe")}
        assert sum(p.values()) == pytest.approx(1, abs=1e-5)
        assert p[row["decision/damage"]] == max(p.values())


def test_a_class_that_training_never_saw_is_told(call, posts, tmp_path):
    assert call("train", "--data", posts, "--out", tmp_path / "run", *SMALL)[0] == 0
    text = posts.read_text().replace("severe", "total")
    (tmp_path / "new.csv").write_text(text)
    code, _, err = call("evaluate", tmp_path / "run", "--data", tmp_path / "new.csv", *CPU)
    assert code == 2
    assert "y_damage: expected the classes of the training data, mild, none, severe" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--loss", "asymmetric"], "loss: expected focal for the multi-class tasks informative"),
        (["--smoothing", "0.1"], "smoothing: expected 0 for the multi-class tasks informative"),
        (["--monitor", "micro_f1"], "monitor: expected micro_f1 only with binary tasks, got none"),
        (["--threshold", "micro_f1"], "threshold: expected half without a binary task"),
    ],
)
def test_what_multi_class_tasks_cannot_have(call, tmp_path, options, message):
    run = tmp_path / "run"
    code, _, err = call("train", "--data", CRISIS, "--out", run, *HGFN, *options)
    assert (code, message in err, run.exists()) == (2, True, False)


def test_reproduce_takes_binary_tasks_alone(call, tmp_path):
    code, _, err = call(
        "reproduce", "hgfn", "--data", CRISIS, "--out", tmp_path / "r", "--seeds", "1", *CPU
    )
    assert code != 0
    assert "y_informative: expected binary tasks alone to reproduce, got classes" in err


@pytest.mark.slow  # tests/training/test_ranks.py has it without the command line
def test_two_processes_come_to_the_result_of_one(call, tmp_path):
    train = ["train", "--data", CRISIS, *HGFN, "--dropout", "0"]
    command = [sys.executable, "-m", "fastmtl", *train, "--processes", "2"]
    shared = subprocess.run(
        [*command, "--out", tmp_path / "two"], capture_output=True, text=True, check=False
    )
    assert (shared.returncode, shared.stderr) == (0, "")
    assert call(*train, "--out", tmp_path / "one")[0] == 0
    one, two = (read_json(tmp_path / name / "metrics.json") for name in ("one", "two"))
    assert two["test"]["macro_f1"] == pytest.approx(one["test"]["macro_f1"], abs=1e-3)
    assert two["test"]["map"] == pytest.approx(one["test"]["map"], abs=1e-3)


def test_a_run_that_goes_on_is_the_same_to_the_bit(call, tmp_path):
    train = ["train", "--data", CRISIS, *HGFN]
    assert call(*train, "--out", tmp_path / "whole", "--epochs", 3)[0] == 0
    assert call(*train, "--out", tmp_path / "parts", "--epochs", 1)[0] == 0
    assert call("train", "--out", tmp_path / "parts", "--resume", "--epochs", 3)[0] == 0
    whole, parts = (
        load_tensors(tmp_path / name / "checkpoint.safetensors")[0] for name in ("whole", "parts")
    )
    assert whole.keys() == parts.keys()
    assert all(value.equal(parts[name]) for name, value in whole.items())
