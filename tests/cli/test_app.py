from __future__ import annotations

import fastmtl


def test_version_and_help(call):
    assert call("--version") == (0, f"fastmtl {fastmtl.__version__}\n", "")
    code, out, _ = call()
    assert code == 0
    for command in ("train", "evaluate", "predict", "info"):
        assert command in out
        assert call(command, "--help")[0] == 0


def test_a_missing_option_or_command_is_one_line(call):
    for arguments in (["train"], ["evaluate"], ["predict", "x"], ["dance"], ["--dance"]):
        code, out, err = call(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
