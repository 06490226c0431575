from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fastmtl
from fastmtl import cli
from fastmtl.training import Predictor, Trainer, load_data
from fastmtl.training.checkpoint import load_tensors, read_json
from fastmtl.training.factory import BALANCERS

FLAT = "synthetic:disaster?clips=60&frames=3&features=6"
MODALITIES = "synthetic:disaster-multimodal?clips=60&frames=3&text=4&audio=5&video=6"
SMALL = ["--hidden-size", "4", "--attention-size", "3", "--device", "cpu", "--epochs", "2"]
CPU = ["--device", "cpu"]


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fastmtl", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        shown = capsys.readouterr()
        return caught.value.code, shown.out, shown.err

    return run


@pytest.fixture
def run_dir(tmp_path, call):
    """A finished small run on FLAT."""
    code, _, _ = call("train", "--data", FLAT, "--out", tmp_path / "run", *SMALL)
    assert code == 0
    return tmp_path / "run"


def npz(path, features=6, labels=("a", "b"), rows=30, **arrays):
    rng = np.random.default_rng(0)
    content = {
        "x": rng.normal(size=(rows, features)).astype(np.float32),
        "y": (np.arange(rows * len(labels)).reshape(rows, -1) // 2 % 2).astype(np.uint8),
        "label_names": np.array(labels),
    }
    np.savez(path, **{k: v for k, v in {**content, **arrays}.items() if v is not None})
    return path


def test_version_and_help(call):
    assert call("--version") == (0, f"fastmtl {fastmtl.__version__}\n", "")
    code, out, _ = call()
    assert code == 0
    for command in ("train", "evaluate", "predict", "info"):
        assert command in out
        assert call(command, "--help")[0] == 0


def test_info(call):
    code, out, err = call("info")
    assert (code, err) == (0, "")
    assert torch.__version__ in out
    assert "focal_loss" in out


@pytest.mark.parametrize(
    ("model", "data", "options"),
    [
        ("mtmlan", FLAT, ["--shared-features", "5", "--balance-at", "shared", "--alpha", "0.5"]),
        ("hgfn", MODALITIES, ["--theta", "1", "--max-level", "2", "--head-size", "5"]),
        ("hgfn", FLAT, ["--modalities", "left=0:2,right=2:6"]),
        ("hgfn", FLAT, []),
        ("gfn", MODALITIES, ["--interaction", "--balancer", "equal"]),
        ("matf", MODALITIES, ["--balancer", "mgda"]),
        ("cfc", MODALITIES, ["--balancer", "tdb", "--no-imbalance-penalty"]),
        ("mtmlan", MODALITIES, ["--modalities", "text"]),
    ],
)
def test_train_prints_epochs_and_results(call, tmp_path, model, data, options):
    arguments = ["--model", model, "--data", data, "--out", tmp_path / "run", *SMALL, *options]
    code, out, err = call("train", *arguments)
    assert (code, err) == (0, "")
    assert "epoch 2/2  loss " in out
    assert "micro-F1" in out
    assert "accuracy victim" in out
    metrics = read_json(tmp_path / "run" / "metrics.json")
    assert metrics["training"]["epochs"] == 2


@pytest.mark.parametrize("balancer", BALANCERS)
def test_every_balancer_trains_and_resumes(call, tmp_path, balancer):
    options = ["--model", "hgfn", "--balancer", balancer, "--data", MODALITIES, *SMALL]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert call("train", "--out", whole, *options)[0] == 0
    assert call("train", "--out", parts, *options, "--epochs", 1)[0] == 0
    assert call("train", "--out", parts, *options, "--resume")[0] == 0
    (expected, _), (actual, _) = (
        load_tensors(p / "checkpoint.safetensors") for p in (whole, parts)
    )
    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        assert torch.equal(value, actual[name]), name
    weights = expected["balancer.weights"]
    assert bool((weights == 1).all()) == (balancer == "equal")
    assert ("balancer.log_variances" in expected) == (balancer == "uncertainty")


def test_mgda_needs_a_shared_layer(call, tmp_path):
    options = ["--balancer", "mgda", "--data", FLAT, "--out", tmp_path / "run", *SMALL]
    code, _, error = call("train", *options)
    assert code == 2
    assert "--balancer: mgda needs a layer that the tasks share" in error
    assert call("train", *options, "--shared-features", 4)[0] == 0


def test_a_flat_file_with_a_test_file(call, tmp_path):
    train, test = npz(tmp_path / "a.npz"), npz(tmp_path / "b.npz", rows=12)
    code, _, err = call("train", "--data", train, "--test", test, "--out", tmp_path / "r", *SMALL)
    assert (code, err) == (0, "")
    code, out, _ = call("evaluate", tmp_path / "r", "--data", train, "--test", test, "--json", *CPU)
    assert code == 0
    metrics = read_json(tmp_path / "r" / "metrics.json")
    assert json.loads(out) == {split: metrics[split] for split in ("val", "test")}


def test_evaluate_repeats_metrics_json(call, run_dir):
    code, out, _ = call("evaluate", run_dir, "--data", FLAT, "--json", *CPU)
    metrics = read_json(run_dir / "metrics.json")
    del metrics["training"]
    assert (code, json.loads(out)) == (0, metrics)
    code, out, _ = call("evaluate", run_dir, "--data", FLAT, "--split", "test", *CPU)
    assert code == 0
    assert f"{metrics['test']['hamming_loss']:.4f}" in out
    assert "val" not in out


def test_predict_writes_a_row_for_every_sample(call, run_dir, tmp_path):
    out = tmp_path / "p.csv"
    assert call("predict", run_dir, "--data", FLAT, "--out", out, *CPU) == (0, "", "")
    with open(out, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    predictor = Predictor.load(run_dir, "cpu")
    data = load_data(predictor.config, FLAT)
    expected = predictor.probabilities(data)
    assert [int(row["index"]) for row in rows] == list(range(60))
    for task, name in enumerate(data.label_names):
        p = torch.tensor([float(row[f"probability/{name}"]) for row in rows], dtype=torch.float64)
        torch.testing.assert_close(p, expected[:, task], rtol=1e-5, atol=0)
        decided = torch.tensor([int(row[f"decision/{name}"]) for row in rows]).bool()
        assert torch.equal(decided, expected[:, task] > 0.5)


def test_predict_a_split_with_the_indices_of_the_data(call, run_dir, tmp_path):
    out = tmp_path / "p.csv"
    code, _, _ = call("predict", run_dir, "--data", FLAT, "--split", "test", "--out", out, *CPU)
    assert code == 0
    with open(out, encoding="utf-8") as file:
        index = [int(row["index"]) for row in csv.DictReader(file)]
    config = Predictor.load(run_dir, "cpu").config
    assert index == load_data(config, FLAT).indices("test").tolist()


def test_predict_needs_no_labels(call, tmp_path):
    train, new = npz(tmp_path / "a.npz"), npz(tmp_path / "b.npz", y=None, label_names=None, rows=3)
    assert call("train", "--data", train, "--out", tmp_path / "r", *SMALL)[0] == 0
    assert call("predict", tmp_path / "r", "--data", new, "--out", tmp_path / "p.csv", *CPU)[0] == 0
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 4
    code, _, err = call("evaluate", tmp_path / "r", "--data", new, *CPU)
    assert code == 2
    assert "labels" in err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (
            ["--model", "vgg"],
            "--model: expected one of mtmlan, cmlc, hgfn, cfc, matf, gfn, got 'vgg'",
        ),
        (["--balancer", "best"], "--balancer: expected one of"),
        (["--epochs", "-1"], "--epochs: expected an integer >= 1, got -1"),
        (["--epochs", "many"], "--epochs"),
        (["--lr", "0"], "--lr: expected a finite number > 0"),
        (["--lr", "nan"], "--lr: expected a finite number > 0"),
        (["--batch-size", "0"], "--batch-size: expected"),
        (["--device", "cuda:77"], "device: 'cuda:77' is not available"),
        (["--device", "abacus"], "device: expected auto, cpu"),
        (["--threads", "0"], "--threads: expected"),
        (["--balance-at", "shared"], "--balance-at: expected"),
        (["--theta", "1"], "--theta: expected only with model hgfn"),
        (["--balancer", "equal", "--alpha", "1"], "--alpha: expected only with balancer gradnorm"),
        (["--data", "absent.npz"], "absent.npz: file: expected an existing file"),
        (["--data", "table.xlsx"], "table.xlsx: file: expected"),
        (["--data", "synthetic:flood"], "synthetic:flood: name: expected"),
        (["--data", "synthetic:disaster?clips=x"], "clips: expected an integer"),
        (["--data", MODALITIES], "use hgfn, or keep one with --modalities"),
        (["--modalities", "left=0:99"], "modalities: expected columns from 0 to 5"),
        (["--modalities", "left=0-9"], "modalities"),
        (["--frobnicate"], "No such option"),
        (["surplus"], "surplus"),
    ],
)
def test_a_wrong_option_is_one_line_and_touches_nothing(call, tmp_path, options, named):
    defaults = [] if "--data" in options else ["--data", FLAT]
    code, out, err = call("train", "--out", tmp_path / "run", *defaults, *options)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("fastmtl: ")
    assert named in err
    assert not list(tmp_path.iterdir())


def test_a_missing_option_or_command_is_one_line(call):
    for arguments in (["train"], ["evaluate"], ["predict", "x"], ["dance"], ["--dance"]):
        code, out, err = call(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)


def test_a_used_directory_is_left_alone(call, run_dir):
    before = {path: path.read_bytes() for path in run_dir.iterdir()}
    code, _, err = call("train", "--data", FLAT, "--out", run_dir, *SMALL)
    assert (code, err.count("\n")) == (2, 1)
    assert "--resume" in err
    assert "--overwrite" in err
    assert {path: path.read_bytes() for path in run_dir.iterdir()} == before
    assert call("train", "--data", FLAT, "--out", run_dir, "--overwrite", *SMALL)[0] == 0


def test_resuming_a_finished_run_says_so(call, run_dir):
    code, out, err = call("train", "--out", run_dir, "--resume")
    assert (code, err) == (0, "")
    assert "already finished after 2 epochs" in out


def test_resume_refuses_other_options_and_allows_more_epochs(call, run_dir):
    code, _, err = call("train", "--out", run_dir, "--resume", "--lr", "0.1")
    assert (code, err) == (2, "fastmtl: --lr: expected 0.001 as in the run to resume, got 0.1\n")
    code, _, err = call("train", "--out", run_dir, "--resume", "--data", FLAT + "&seed=4")
    assert code == 2
    assert "the data is not the data" in err
    assert call("train", "--out", run_dir, "--resume", "--epochs", "3")[0] == 0
    assert read_json(run_dir / "metrics.json")["training"]["epochs"] == 3


def test_there_must_be_a_run_to_resume_evaluate_or_predict(call, tmp_path):
    out = ["--out", tmp_path / "p.csv"]
    for arguments in (
        ["train", "--out", tmp_path / "r", "--resume"],
        ["evaluate", tmp_path / "r", "--data", FLAT],
        ["predict", tmp_path / "r", "--data", FLAT, *out],
    ):
        code, _, err = call(*arguments)
        assert (code, err.count("\n")) == (2, 1)
        assert "config.json: no such file" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_damaged_run_is_named(call, run_dir, name):
    content = (run_dir / name).read_bytes()
    (run_dir / name).write_bytes(content[: len(content) // 2])
    code, _, err = call("evaluate", run_dir, "--data", FLAT)
    assert (code, err.count("\n")) == (2, 1)
    assert name in err


def test_data_of_another_kind_is_refused(call, tmp_path):
    train = npz(tmp_path / "a.npz")
    assert call("train", "--data", train, "--out", tmp_path / "r", *SMALL)[0] == 0
    for other, named in (
        (npz(tmp_path / "wide.npz", features=7), "x: expected the feature sizes"),
        (npz(tmp_path / "other.npz", labels=("a", "c")), "label_names: expected the labels"),
        (tmp_path / "absent.npz", "an existing file"),
    ):
        out = ["--out", tmp_path / "p.csv"]
        for arguments in (["evaluate"], ["predict", *out]):
            command, *rest = arguments
            code, _, err = call(command, tmp_path / "r", "--data", other, *rest, *CPU)
            assert (code, err.count("\n")) == (2, 1)
            assert named in err
    assert not (tmp_path / "p.csv").exists()


def test_a_wrong_split_is_named(call, run_dir, tmp_path):
    for command in (["evaluate", run_dir], ["predict", run_dir, "--out", tmp_path / "p.csv"]):
        code, _, err = call(*command, "--data", FLAT, "--split", "dev")
        assert (code, err.count("\n")) == (2, 1)
        assert "--split: expected one of train, val, test, all, got 'dev'" in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_one_line(call, run_dir):
    code, _, err = call("predict", run_dir, "--data", FLAT, "--out", "/dev/full", *CPU)
    assert (code, err) == (1, "fastmtl: cannot write /dev/full: No space left on device\n")


def test_a_full_disk_during_training_is_one_line(call, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = call("train", "--data", FLAT, "--out", tmp_path / "r", *SMALL)
    assert code == 1
    assert err == f"fastmtl: cannot write {tmp_path}/r/config.json: No space left on device\n"
    assert not list((tmp_path / "r").iterdir())


def test_a_directory_that_cannot_be_made_is_one_line(call, tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        code, _, err = call("train", "--data", FLAT, "--out", out, *SMALL)
        assert (code, err.count("\n")) == (2, 1)


def test_a_diverged_run_is_one_line(call, tmp_path):
    code, _, err = call("train", "--data", FLAT, "--out", tmp_path / "r", *SMALL, "--lr", "1e30")
    assert (code, err.count("\n")) == (1, 1)
    assert "try a lower learning rate" in err


def test_a_bug_shows_its_traceback(call, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Trainer, "fit", broken)
    with pytest.raises(ZeroDivisionError):
        call("train", "--data", FLAT, "--out", tmp_path / "r", *SMALL)


def test_warnings_about_the_data_are_shown(call, tmp_path):
    y = np.zeros((30, 2))
    y[::2, 0] = 1
    data = npz(tmp_path / "a.npz", y=y)
    code, _, err = call("train", "--data", data, "--out", tmp_path / "r", *SMALL)
    assert code == 0
    assert "warning" in err
    assert "'b' has no positive" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_run_and_resume_ends_it_the_same(tmp_path, call, number):
    arguments = [
        "train",
        "--data",
        FLAT,
        "--device",
        "cpu",
    ]
    arguments += ["--hidden-size", "8", "--threads", "1", "--dropout", "0.1", "--patience", "9999"]
    part, whole = tmp_path / "part", tmp_path / "whole"
    command = [sys.executable, "-m", "fastmtl", *arguments, "--epochs", "5000", "--out", str(part)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith("epoch 3/"):
            break
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1].endswith(f"continue with: fastmtl train --out {part} --resume")
    assert not (part / "metrics.json").exists()
    _, values = load_tensors(part / "checkpoint.safetensors")
    done = len(values["history"])
    assert done >= 3

    epochs = str(done + 2)
    assert call("train", "--out", part, "--resume", "--epochs", epochs)[0] == 0
    assert call(*arguments, "--epochs", epochs, "--out", whole)[0] == 0
    for name in ("model.safetensors", "checkpoint.safetensors"):
        (a, _), (b, _) = load_tensors(part / name), load_tensors(whole / name)
        assert all(torch.equal(a[key], b[key]) for key in a | b)
    first, second = read_json(part / "metrics.json"), read_json(whole / "metrics.json")
    assert {k: first[k] for k in ("val", "test")} == {k: second[k] for k in ("val", "test")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "name", "options"),
    [
        ("mtmlan", "mulan/scene-train.arff", []),
        ("hgfn", "mulan/yeast-train.arff", ["--modalities", "expression=0:79,phylogeny=79:103"]),
        ("hgfn", "yt8m_top100.npz", ["--batch-size", "128"]),
        ("mtmlan", "natural_scene.npz", []),
        ("hgfn", "mosi.npz", []),
    ],
)
def test_real_data_goes_through_every_command(call, shared_data, tmp_path, model, name, options):
    data, run = shared_data / name, tmp_path / "run"
    arguments = ["--data", data, "--out", run, "--hidden-size", "16", "--epochs", "1", *options]
    assert call("train", "--model", model, *arguments, *CPU)[0] == 0
    code, out, _ = call("evaluate", run, "--data", data, "--json", *CPU)
    metrics = read_json(run / "metrics.json")
    assert (code, json.loads(out)) == (0, {k: metrics[k] for k in ("val", "test")})
    assert call("predict", run, "--data", data, "--out", tmp_path / "p.csv", *CPU)[0] == 0


def test_an_arff_file_with_its_labels_elsewhere(call, tmp_path):
    rows = "".join(f"{i % 5},{i % 3},{i % 2},{i // 2 % 2}\n" for i in range(30))
    header = "@relation r\n@attribute u numeric\n@attribute v numeric\n"
    header += "@attribute a {0,1}\n@attribute b {0,1}\n@data\n"
    (tmp_path / "flat.arff").write_text(header + rows)
    (tmp_path / "names.xml").write_text(
        '<labels xmlns="http://mulan.sourceforge.net/labels">'
        '<label name="a"></label><label name="b"></label></labels>'
    )
    data = ["--data", tmp_path / "flat.arff", "--xml", tmp_path / "names.xml"]
    assert call("train", *data, "--out", tmp_path / "r", *SMALL)[0] == 0
    code, out, _ = call("evaluate", tmp_path / "r", *data, "--json", *CPU)
    assert (code, json.loads(out)["test"]["accuracy"].keys()) == (0, {"a", "b"})
    assert call("predict", tmp_path / "r", *data, "--out", tmp_path / "p.csv", *CPU)[0] == 0


def test_reproduce_goes_on_and_prints_the_table(call, tmp_path):
    arguments = ["reproduce", "mtmlan", "--data", FLAT, "--out", tmp_path / "r", *CPU]
    arguments += ["--systems", "cmlc,mtmlan", "-o", "epochs=1", "-o", "hidden_size=4"]
    code, out, err = call(*arguments, "--seeds", "1")
    assert (code, err) == (0, "")
    assert "[2/2] mtmlan/seed-0: micro_f1 " in out
    code, out, err = call(*arguments, "--seeds", "2")
    assert (code, err) == (0, "")
    assert "2 of 4 runs are done already" in out
    assert "accuracy by concept" in out
    for name in ("table.md", "table.json", "losses.png", "weights.png"):
        assert (tmp_path / "r" / name).stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["vgg"], "table: expected one of mtmlan, hgfn, mtdnn, got 'vgg'"),
        (["mtmlan", "--systems", "vgg"], "systems: expected some of cmlc"),
        (["mtmlan", "-o", "lr=-1"], "--lr: expected a finite number > 0"),
        (["mtmlan", "--jobs", "0"], "jobs: expected an integer >= 1, got 0"),
        (["mtmlan", "--data", "absent.npz"], "an existing file"),
    ],
)
def test_a_wrong_reproduction_is_one_line_and_touches_nothing(call, tmp_path, arguments, named):
    defaults = [] if "--data" in arguments else ["--data", FLAT]
    code, out, err = call("reproduce", *arguments, *defaults, "--out", tmp_path / "r", *CPU)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert named in err
    assert not list(tmp_path.iterdir())


def test_systems(call):
    code, out, err = call("systems")
    assert (code, err) == (0, "")
    for name in ("mtmlan-no-tip", "hgfn-mti-net", "mtdnn"):
        assert name in out
