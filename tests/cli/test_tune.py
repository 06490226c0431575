from __future__ import annotations

from importlib.util import find_spec

import pytest

from fastmtl.cli import tune as command
from tests.cli.cases import FLAT, SMALL

needs_optuna = pytest.mark.skipif(find_spec("optuna") is None, reason="optuna is not installed")


@needs_optuna
def test_the_best_options_train_a_run(call, tmp_path):
    out = tmp_path / "tuned"
    options = ["--data", FLAT, *SMALL, "--search", "lr=1e-4:1e-1:log", "--trials", "2"]
    code, shown, err = call("tune", *options, "--out", out)
    assert (code, err) == (0, "")
    assert "2 of 2 trials, validation split" in shown
    assert call("train", "--config", out / "best.toml", "--out", tmp_path / "run")[0] == 0
    code, shown, _ = call("tune", *options, "--out", out)
    assert code == 0
    assert "2 trials over lr, 2 of them done already" in shown


@needs_optuna
@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--search", "lr=1:0"], "--search: lr: expected LOW < HIGH"),
        (["--search", "theta=0.1:1"], "--theta: expected only with model hgfn"),
        (["--trials", "0"], "--trials: expected an integer >= 1, got 0"),
        (["--jobs", "0"], "--jobs: expected an integer >= 1, got 0"),
        (["--search", "balancer=equal,mgda"], "--balancer: mgda needs a layer"),
        (["--data", "absent.npz"], "absent.npz"),
        (
            ["--monitor", "loss", "--search", "loss=focal,poly1"],
            "--monitor: expected map, micro_f1 or",
        ),
    ],
)
def test_what_cannot_be_searched_is_told(call, tmp_path, options, named):
    code, _, err = call("tune", "--data", FLAT, *SMALL, *options, "--out", tmp_path / "tuned")
    assert code == 2
    assert named in err
    assert not (tmp_path / "tuned").exists()


@needs_optuna
def test_a_given_option_is_not_searched_by_default(call, tmp_path):
    options = ["--data", FLAT, *SMALL, "--lr", "0.01", "--trials", "1"]
    code, shown, _ = call("tune", *options, "--out", tmp_path / "tuned")
    assert code == 0
    assert "1 trials over weight_decay, dropout, 0 of them done" in shown


def test_an_absent_optuna_is_told(call, tmp_path, monkeypatch):
    def absent():
        raise ImportError('tune: needs Optuna; pip install "fastmtl-torch[tune]"')

    monkeypatch.setattr(command, "need_optuna", absent)
    code, _, err = call("tune", "--data", FLAT, "--out", tmp_path / "tuned")
    assert code == 2
    assert "needs Optuna; pip install" in err
