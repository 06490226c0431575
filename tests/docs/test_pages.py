"""The code of every page runs, and prints what the page shows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fastmtl
from fastmtl.cli.app import COMMANDS
from fastmtl.data import DataError
from tests.cli.conftest import call
from tests.docs import surroundings
from tests.docs.pages import PAGES, Block, blocks, missing_line, missing_package

__all__ = ["call"]

# Commands that need a package which is not there.
ABSENT = {
    command
    for command, package in (("export", "onnxscript"), ("tune", "optuna"), ("extract", "av"))
    if find_spec(package) is None
}
# Where nothing is shown of what is printed, less of it will do.
SMALL = {
    "train": "--epochs 1 --hidden-size 4 --attention-size 3 --device cpu",
    "tune": "--epochs 1 --hidden-size 4 --attention-size 3 --device cpu --trials 2",
    "reproduce": "--device cpu -o epochs=1",
}


# Every block of these follows from those before it; of the others, Python and commands do so apart.
QUICK_STARTS = [page for page in PAGES if page.startswith("docs/quickstart/")]
OTHERS = [page for page in PAGES if page not in QUICK_STARTS]
PYTHON = [page for page in OTHERS if any(block.language == "python" for block in blocks(page))]
# Ten epochs are trained for what docs/cli.md shows.
LONG = {"docs/cli.md"}


def having(pattern: str) -> list[Any]:
    """The pages with a line that begins so."""
    found = [page for page in OTHERS if any(re.search(pattern, b.text, re.M) for b in blocks(page))]
    return [pytest.param(page, marks=pytest.mark.slow) if page in LONG else page for page in found]


@pytest.fixture
def reader(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with the reader's files."""
    monkeypatch.chdir(tmp_path)
    surroundings.files()


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("page", PYTHON)
def test_python(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = {"fastmtl": fastmtl, "torch": torch, "nn": nn, "F": nn.functional, "np": np}
    with ExitStack() as stack:
        names |= surroundings.NAMES[page](stack)
        for block in blocks(page):
            _execute(page, block, names, capsys)


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("page", QUICK_STARTS)
def test_quick_starts(
    page: str, call: Callable[..., tuple[int, str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {}
    for block in blocks(page):
        _execute(page, block, names, capsys)
        _call(page, block, call, lambda command: command != "reproduce")


def _execute(
    page: str, block: Block, names: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Run a block of Python, and look for what it is said to print."""
    if block.language == "python" and not missing_package(block.text):
        exec(compile("\n" * block.line + block.text, page, "exec"), names)
        assert missing_line(block.shown, capsys.readouterr().out) is None


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("page", having(r"^fastmtl (?!reproduce)"))
def test_commands(page: str, call: Callable[..., tuple[int, str, str]]) -> None:
    _run(page, call, lambda command: command != "reproduce")


@pytest.mark.slow
@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("page", having("^fastmtl reproduce"))
def test_reproduce_commands(page: str, call: Callable[..., tuple[int, str, str]]) -> None:
    _run(page, call, lambda command: command == "reproduce")


def _run(
    page: str, call: Callable[..., tuple[int, str, str]], wanted: Callable[[str], bool]
) -> None:
    if "extract" not in ABSENT and any("fastmtl extract" in each.text for each in blocks(page)):
        surroundings.clips()
    for block in blocks(page):
        _call(page, block, call, wanted)


def _call(
    page: str,
    block: Block,
    call: Callable[..., tuple[int, str, str]],
    wanted: Callable[[str], bool],
) -> None:
    """Run the commands of a block, and look for what they are said to print."""
    printed = ""
    for line in block.commands:
        if not line.startswith("fastmtl ") or block.language in ("text", "python"):
            continue
        _, command, *words = shlex.split(line, comments=True)
        if command in ABSENT:
            break  # What follows in the block may need what it makes.
        if not wanted(command):
            continue
        # Pages say OUT for any directory.
        words = [f"out-{block.line}" if word == "OUT" else word for word in words]
        small = "" if block.shown or "--resume" in words else SMALL.get(command, "")
        if command == "reproduce":
            small += " --folds 2" if words[0] == "mtdnn" else " --seeds 1 -o hidden_size=4"
        code, out, err = call(command, *words, *small.split())
        assert code == 0, f"{page}:{block.line}: {line}\n{err}"
        printed += out
    if printed:
        assert missing_line(block.shown, printed) is None


def test_every_command_is_listed() -> None:
    listed = blocks("docs/cli.md")[0].text
    for command in COMMANDS:
        assert re.search(rf"^fastmtl {command} ", listed, re.M)


@pytest.mark.usefixtures("reader")
def test_errors_of_data() -> None:
    shown = next(
        block.text
        for block in blocks("docs/data.md")
        if "expected only numbers from 0 to 1" in block.text
    )
    good = {"x_video": np.zeros((9, 2, 8)), "y": np.arange(18).reshape(9, 2) % 2.0}
    for line in shown.splitlines():
        faulty = {name: array.copy() for name, array in good.items()}
        if ": y:" in line:
            faulty["y"][3, 1] = 2
        else:
            faulty["x_video"].reshape(-1)[87:99] = np.nan  # from row 5, step 0, column 7
        np.savez("clips.npz", **faulty)
        with pytest.raises(DataError, match=re.escape(line)):
            fastmtl.data.load("clips.npz")


def test_synthetic_sets() -> None:
    lines = next(b.commands for b in blocks("docs/data.md") if b.text.startswith("synthetic:"))
    for line in lines:
        spec = line.split()[0]
        spec += "" if "clips" in spec else "&clips=40"
        assert len(fastmtl.data.load(spec)) in (40, 200)


def test_the_formula_of_the_focal_loss() -> None:
    names = {"torch": torch, "F": nn.functional, **surroundings.NAMES["docs/ops.md"](ExitStack())}
    exec(next(b.text for b in blocks("docs/ops.md") if b.language == "python"), names)
    expected = fastmtl.ops.focal_loss(names["logits"], names["targets"], mask=names["mask"])
    torch.testing.assert_close(names["loss"], expected)
