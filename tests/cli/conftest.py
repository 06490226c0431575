"""The command line in this process, and a run to use it on."""

from __future__ import annotations

import sys

import pytest

from fastmtl import cli
from tests.cli.cases import FLAT, SMALL


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
