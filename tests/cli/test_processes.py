"""Several processes from the command line: how they start, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from fastmtl.training.checkpoint import load_tensors, read_json
from tests.cli.cases import FLAT, SMALL

TRAIN = [sys.executable, "-m", "fastmtl", "train", "--data", FLAT, *SMALL, "--out"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
LONG = ["--epochs", "5000", "--patience", "9999", "--dropout", "0"]


def start(*arguments):
    return subprocess.Popen(
        [*map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def until(process, line):
    for printed in process.stdout:
        if printed.startswith(line):
            return
    raise AssertionError(process.stderr.read())


def children(process):
    """The processes that a process has started."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
    )
    return [int(pid) for pid in listed.stdout.split()]


@pytest.mark.slow
def test_processes_train_and_one_goes_on(call, tmp_path):
    process = start(*TRAIN, tmp_path / "run", "--processes", 2)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    assert out.count("2 processes on cpu; ") == 1
    assert out.count("epoch 2/2  loss ") == 1
    assert out.count("best epoch ") == 1
    assert call("train", "--out", tmp_path / "run", "--resume", "--epochs", 3)[0] == 0
    assert call("train", "--data", FLAT, *SMALL, "--out", tmp_path / "one", "--epochs", 3)[0] == 0
    several, one = (read_json(tmp_path / name / "metrics.json") for name in ("run", "one"))
    assert several["test"].keys() == one["test"].keys()
    assert several["training"]["epochs"] == 3


def test_a_process_that_is_killed_ends_the_others_with_one_line(tmp_path):
    process = start(*TRAIN, tmp_path / "run", "--processes", 2, *LONG)
    until(process, "epoch 3/")
    _, second = children(process)
    os.kill(second, signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert err == (
        "fastmtl: process 1 of 2 was ended by SIGKILL; continue with: fastmtl train --out "
        f"{tmp_path / 'run'} --resume --processes 2\n"
    )
    _, values = load_tensors(tmp_path / "run/checkpoint.safetensors")
    assert len(values["history"]) >= 3


def test_a_signal_stops_all_processes_and_one_goes_on_from_the_last_epoch(call, tmp_path):
    process = start(*TRAIN, tmp_path / "run", "--processes", 2, *LONG)
    until(process, "epoch 3/")
    workers = children(process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err.count("\n") == 1
    assert err.startswith("fastmtl: stopped after ")
    _, values = load_tensors(tmp_path / "run/checkpoint.safetensors")
    done = len(values["history"])
    assert f"stopped after {done} epochs" in err
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
    assert call("train", "--out", tmp_path / "run", "--resume", "--epochs", done + 1)[0] == 0
    assert read_json(tmp_path / "run/metrics.json")["training"]["epochs"] == done + 1


@pytest.mark.slow
def test_a_launcher_that_is_killed_takes_its_processes_along(tmp_path):
    process = start(*TRAIN, tmp_path / "run", "--processes", 2, *LONG)
    until(process, "epoch 1/")
    workers = children(process)
    process.kill()
    process.communicate(timeout=120)
    deadline = time.monotonic() + 60
    while any(os.path.exists(f"/proc/{worker}") for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_torchrun_starts_processes(tmp_path):
    process = start(*TORCHRUN, *TRAIN[1:], tmp_path / "run")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.count("2 processes on cpu; ") == 1


@pytest.mark.slow
def test_an_error_of_all_processes_of_torchrun_is_one_line(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/other").touch()
    process = start(*TORCHRUN, *TRAIN[1:], tmp_path / "run")
    _, err = process.communicate(timeout=300)
    assert process.returncode != 0
    assert err.count("expected a new or empty directory") == 1


@pytest.mark.parametrize(
    ("options", "environment", "named"),
    [
        (["--processes", "0"], {}, "--processes: expected an integer >= 1, got 0"),
        (["--processes", "2", "--lr", "0"], {}, "--lr: expected a finite number > 0"),
        (["--processes", "2"], {"WORLD_SIZE": "4"}, "expected 1 under torchrun, which started 4"),
        ([], {"WORLD_SIZE": "many"}, "WORLD_SIZE: expected how many processes there are"),
    ],
)
def test_what_cannot_start_is_one_line_and_touches_nothing(
    call, tmp_path, monkeypatch, options, environment, named
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code, _, err = call("train", "--out", tmp_path / "run", "--data", FLAT, *SMALL, *options)
    assert (code, err.count("\n")) == (2, 1), err
    assert named in err
    assert not list(tmp_path.iterdir())


def test_data_that_no_process_can_read_is_one_line(tmp_path):
    process = start(*TRAIN, tmp_path / "run", "--processes", 2, "--data", "absent.npz")
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out, err.count("\n")) == (2, "", 1), err
    assert "absent.npz: file: expected an existing file" in err
    assert not list(tmp_path.iterdir())
