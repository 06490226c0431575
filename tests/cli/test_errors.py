from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from fastmtl.training import Trainer
from tests.cli.cases import CPU, FLAT, SMALL


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


@pytest.mark.parametrize("allocate", [np.empty, torch.empty], ids=["numpy", "torch"])
def test_memory_that_is_not_there_is_one_line(call, tmp_path, monkeypatch, allocate):
    monkeypatch.setattr(Trainer, "fit", lambda *_, **__: allocate(1 << 55))
    code, _, err = call("train", "--data", FLAT, "--out", tmp_path / "r", *SMALL)
    assert (code, err.count("\n")) == (1, 1)
    assert "out of memory" in err
