from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.cli.cases import CPU, FLAT


def test_reproduce_goes_on_and_prints_the_table(call, tmp_path):
    arguments = ["reproduce", "mtmlan", "--data", FLAT, "--out", tmp_path / "r", *CPU]
    arguments += ["--systems", "cmlc,mtmlan", "-o", "epochs=1", "-o", "hidden_size=4"]
    code, out, err = call(*arguments, "--seeds", "1")
    assert (code, err) == (0, "")
    assert "2 runs (2 systems, 1 seeds), 0 of them done already" in out
    assert "[2/2] mtmlan/seed-0: micro-F1 " in out
    code, out, err = call(*arguments, "--seeds", "2")
    assert (code, err) == (0, "")
    assert "4 runs (2 systems, 2 seeds), 2 of them done already" in out
    assert "accuracy by concept" in out
    for name in ("table.md", "table.json", "losses.png", "weights.png"):
        assert (tmp_path / "r" / name).stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["mtmlan", "-o", "epoch=1"], "--option: expected some of accumulate, alpha, "),
        (["mtmlan", "-o", "epochs"], "--option: expected NAME=VALUE, got 'epochs'"),
        (["mtmlan", "--folds", "3"], "--folds: expected only with mtdnn, got it with mtmlan"),
        (["mtdnn", "--seeds", "3"], "--seeds: expected only with --folds 1, got it with 10 folds"),
        (["vgg"], "table: expected one of mtmlan, hgfn, mtdnn, got 'vgg'"),
        (["mtmlan", "--systems", "vgg"], "--systems: expected some of cmlc"),
        (["mtmlan", "-o", "lr=-1"], "--lr: expected a finite number > 0"),
        (["mtmlan", "--jobs", "0"], "--jobs: expected an integer >= 1, got 0"),
        (["mtmlan", "--data", "absent.npz"], "an existing file"),
    ],
)
def test_a_wrong_reproduction_is_one_line_and_touches_nothing(call, tmp_path, arguments, named):
    defaults = [] if "--data" in arguments else ["--data", FLAT]
    code, out, err = call("reproduce", *arguments, *defaults, "--out", tmp_path / "r", *CPU)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert named in err
    assert not list(tmp_path.iterdir())


def test_one_modality_leaves_nothing_to_fuse(call, tmp_path):
    arguments = ["reproduce", "hgfn", "--data", FLAT, "--out", tmp_path / "r", *CPU]
    arguments += ["--systems", "cfc-lsew", "--seeds", 1, "-o", "epochs=1", "-o", "hidden_size=4"]
    code, _, err = call(*arguments)
    assert code == 0
    assert err.startswith("fastmtl: warning: the data has one modality, nothing to fuse")


@pytest.mark.parametrize("jobs", [pytest.param("1", marks=pytest.mark.slow), "2"])
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no process groups on this system")
def test_ctrl_c_stops_every_process_and_keeps_what_is_done(tmp_path, jobs):
    command = [sys.executable, "-m", "fastmtl", "reproduce", "mtmlan", "--data", FLAT, *CPU]
    command += ["--out", str(tmp_path), "--systems", "ewmtc,mtmlan", "--seeds", "2"]
    command += ["-o", "epochs=100000", "-o", "patience=100000", "-o", "hidden_size=4"]
    process = subprocess.Popen(
        [*command, "--jobs", jobs, "--threads", "1"],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("*/*/model.safetensors"))) < int(jobs):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err == "fastmtl: stopped; the same command goes on from here\n"
    assert len(list(tmp_path.glob("*/*/checkpoint.safetensors"))) == int(jobs)
    assert not list(tmp_path.glob("*/*/result.json"))
