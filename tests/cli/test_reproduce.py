from __future__ import annotations

import pytest

from tests.cli.cases import CPU, FLAT


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
