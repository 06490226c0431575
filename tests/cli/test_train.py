from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

import fastmtl
from fastmtl.training import TrainConfig, Trainer
from fastmtl.training.checkpoint import load_tensors, read_json
from fastmtl.training.presets import PRESETS
from fastmtl.training.recipes import BALANCERS
from tests.cli.cases import CPU, FLAT, MODALITIES, SMALL, npz


@pytest.mark.parametrize(
    ("model", "data", "options"),
    [
        (
            "mtmlan",
            FLAT,
            ["--shared-features", "5", "--balance-at", "shared", "--balance-scope", "trunk"],
        ),
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
    assert out.startswith(f"{model}, ")
    assert "7 labels, samples: 36 train, 12 val, 12 test" in out
    assert "epoch 2/2  loss " in out
    assert "micro-F1" in out
    assert "by label, test" in out
    assert "victim" in out
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


def test_a_preset_is_where_options_start_from(call, tmp_path):
    arguments = ["--data", FLAT, "--preset", "paper", *SMALL]
    assert call("train", *arguments, "--out", tmp_path / "a", "--lr", 0.01)[0] == 0
    stored = read_json(tmp_path / "a" / "config.json")["train"]
    assert {**PRESETS["paper"], "lr": 0.01}.items() <= stored.items()
    # Resuming checks a preset as it checks options.
    resume = ["--out", tmp_path / "a", "--resume"]
    assert call("train", *resume)[0] == 0
    code, _, error = call("train", *resume, "--preset", "paper")
    assert code == 2
    assert "--lr: expected 0.01 as in the run to resume, got 0.001" in error


def test_a_flat_file_with_a_test_file(call, tmp_path):
    train, test = npz(tmp_path / "a.npz"), npz(tmp_path / "b.npz", rows=12)
    code, _, err = call("train", "--data", train, "--test", test, "--out", tmp_path / "r", *SMALL)
    assert (code, err) == (0, "")
    code, out, _ = call("evaluate", tmp_path / "r", "--data", train, "--test", test, "--json", *CPU)
    assert code == 0
    metrics = read_json(tmp_path / "r" / "metrics.json")
    assert json.loads(out) == {split: metrics[split] for split in ("val", "test")}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (
            ["--model", "vgg"],
            "--model: expected one of mtmlan, mtmlan-shared, cmlc, hgfn, cfc, matf, gfn, got 'vgg'",
        ),
        (["--balancer", "best"], "--balancer: expected one of"),
        (["--preset", "fast"], "--preset: expected one of default, paper, got 'fast'"),
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
        (["--standardize", "yes"], "yes"),
        (["--resume", "--overwrite"], "--resume: expected either resume or overwrite, got both"),
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


def test_the_help_has_every_option_with_its_default(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = call("train", "--help")
    assert code == 0
    lines = {line.split()[1]: line for line in out.splitlines() if line.startswith("│ --")}
    for field in dataclasses.fields(TrainConfig):
        line = lines[f"--{field.name.replace('_', '-')}"]
        if field.default is not None and not isinstance(field.default, bool):
            assert f"[default: ({field.default})]" in line


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


def test_warnings_about_the_data_are_shown(call, tmp_path):
    y = np.zeros((30, 2))
    y[::2, 0] = 1
    data = npz(tmp_path / "a.npz", y=y)
    code, _, err = call("train", "--data", data, "--out", tmp_path / "r", *SMALL)
    assert code == 0
    assert "warning" in err
    assert "'b' has no positive" in err


def test_of_many_warnings_the_first_are_shown(call, tmp_path):
    fields = {f"u{i}": np.zeros(1) for i in range(30)}
    data = npz(tmp_path / "a.npz", y=np.tile([[0, 1], [1, 0]], (15, 1)), **fields)
    code, _, err = call("train", "--data", data, "--out", tmp_path / "r", *SMALL)
    assert (code, err.count("\n")) == (0, 11)
    assert err.endswith("warning: and 20 more\n")


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
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


@pytest.mark.parametrize("command", ["reproduce", "predict"])
def test_several_processes_are_refused(call, tmp_path, monkeypatch, command):
    monkeypatch.setenv("WORLD_SIZE", "2")
    first = {"reproduce": ["mtmlan"], "predict": [tmp_path]}[command]
    code, _, err = call(command, *first, "--data", FLAT, "--out", tmp_path / "run")
    assert (code, err.count("\n")) == (2, 1)
    assert "WORLD_SIZE: expected one process, got 2" in err
    assert not list(tmp_path.iterdir())


def test_a_run_of_ones_own_arrays_is_not_resumed_on_others(call, tmp_path):
    config = TrainConfig(hidden_size=4, attention_size=3, epochs=1, device="cpu")
    Trainer.from_config(config, tmp_path / "r", fastmtl.data.load(FLAT)).fit()
    code, _, err = call("train", "--out", tmp_path / "r", "--resume")
    assert (code, err.count("\n")) == (2, 1)
    assert "the data of this run were given in Python" in err
    assert call("train", "--out", tmp_path / "r", "--resume", "--data", FLAT)[0] == 0


def test_a_reader_that_leaves_does_not_end_the_run(tmp_path):
    command = [sys.executable, "-m", "fastmtl", "train", "--data", FLAT, *SMALL, "--out"]
    process = subprocess.Popen(
        [*command, str(tmp_path / "r")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 0
    assert err == ("fastmtl: warning: nobody reads standard output any more; the run goes on\n")
    assert (tmp_path / "r/metrics.json").is_file()


@pytest.mark.parametrize(
    "options", [[], pytest.param(["--json"], marks=pytest.mark.slow)], ids=["table", "json"]
)
def test_a_reader_of_figures_that_leaves_is_told(run_dir, options):
    command = [sys.executable, "-m", "fastmtl", "evaluate", str(run_dir), "--data", FLAT]
    process = subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 1
    assert err == "fastmtl: nobody reads standard output any more\n"
