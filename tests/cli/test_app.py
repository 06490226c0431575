from __future__ import annotations

import os

import pytest

import fastmtl
from fastmtl.cli.app import COMMANDS, SPINS, function_of, main
from tests.cli.cases import MODALITIES


def test_version_and_help(call):
    assert call("--version") == (0, f"fastmtl {fastmtl.__version__}\n", "")
    code, out, _ = call()
    assert code == 0
    for command in ("train", "evaluate", "predict", "info"):
        assert command in out
        assert call(command, "--help")[0] == 0


def test_help_tells_the_first_line_of_a_command(call):
    told = " ".join(call()[1].replace("│", " ").split())
    for name in COMMANDS:
        assert function_of(name).__doc__.splitlines()[0] in told


def test_a_missing_option_or_command_is_one_line(call):
    for arguments in (["train"], ["evaluate"], ["predict", "x"], ["dance"], ["--dance"]):
        code, out, err = call(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["trian"], "'train'"),
        (["train", "--out", "x", "--epoch", "3"], "--epochs"),
        (["train", "--out", "x", "--model", "mtmlam"], "(did you mean 'mtmlan'?)"),
        (["train", "--out", "x", "--balancer", "gradnrm"], "(did you mean 'gradnorm'?)"),
        (["train", "--out", "x", "--preset", "papers"], "(did you mean 'paper'?)"),
        (["train", "--out", "x", "--data", "synthetic:disaster?clip=9"], "(did you mean 'clips'?)"),
        (
            ["train", "--out", "x", "--model", "hgfn", "--modalities", "txt", "--data", MODALITIES],
            "(did you mean 'text'?)",
        ),
        (["reproduce", "mtdn", "--data", "x", "--out", "x"], "(did you mean 'mtdnn'?)"),
        (
            ["reproduce", "mtmlan", "--data", "x", "--out", "x", "-o", "epoch=3"],
            "(did you mean 'epochs'?)",
        ),
        (
            ["reproduce", "mtmlan", "--data", "x", "--out", "x", "--systems", "mtmlan-notip"],
            "(did you mean 'mtmlan-no-tip'?)",
        ),
    ],
)
def test_a_name_that_is_mistyped(call, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert told in err


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("fastmtl do", ["doctor"]),
        ("fastmtl train --mod", ["--model", "--modalities"]),
        ("fastmtl train --model mt", ["mtmlan", "mtmlan-shared"]),
        ("fastmtl reproduce h", ["hgfn"]),
    ],
)
def test_a_shell_completes(call, monkeypatch, typed, completed):
    monkeypatch.setenv("_FASTMTL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
    code, out, err = call()
    assert (code, out.split(), err) == (0, completed, "")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_that_wait_soon_sleep_unless_told_otherwise(monkeypatch, environment, expected):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that what main sets is taken back
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["fastmtl", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert os.environ.get("GOMP_SPINCOUNT") == expected
