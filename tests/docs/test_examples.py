"""The scripts of examples/: each runs, and prints what its page shows."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

from tests.docs.pages import ROOT, blocks, missing_line, missing_package

PAGE = "examples/README.md"
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
# Processes of their own, a compiler and an exporter take their time whatever the sizes.
OF_PROCESSES = {"accelerate_loop", "ddp", "fabric_loop"}
LONG = {"compiled_step", "export_and_serve"} | OF_PROCESSES
# What makes the others quick, besides a single epoch.
SMALL = {
    "compiled_step.py": "--steps 2 --backend aot_eager",
    "ddp.py": "--steps 2",
    "huggingface_trainer.py": "--steps 2",
    "mixed_tasks.py": "--steps 2",
}
SHOWN = {
    Path(shlex.split(block.commands[0])[1]).name: block
    for block in blocks(PAGE)
    if block.text.startswith("python examples/")
}


def _needs(script: Path) -> None:
    if missing := missing_package(script.read_text(encoding="utf-8")):
        pytest.skip(f"{missing} is not installed")


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(path, id=path.stem, marks=pytest.mark.slow if path.stem in LONG else ())
        for path in SCRIPTS
    ],
)
def test_a_small_run(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _needs(script)
    small = SMALL.get(script.name, "--epochs 1").split()
    if script.stem in OF_PROCESSES:
        printed = _process(script, *small)
    else:
        monkeypatch.setattr(sys, "argv", [str(script), *small])
        runpy.run_path(str(script), run_name="__main__")
        printed = capsys.readouterr().out
    words = [line.split()[0] for line in SHOWN[script.name].shown.splitlines() if line.strip()]
    assert set(words) & {line.split()[0] for line in printed.splitlines() if line.strip()}


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_what_is_shown(script: Path) -> None:
    _needs(script)
    assert missing_line(SHOWN[script.name].shown, _process(script)) is None


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plt.switch_backend("Agg")
    drawn = []
    monkeypatch.setattr(plt, "show", lambda: drawn.append(len(plt.gcf().axes)))
    names: dict[str, Any] = {}
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            # What it draws is looked at where it is run, and not stored.
            assert not cell["outputs"]
            code = "".join(cell["source"])
            exec(re.sub(r"^EPOCHS = \d+$", "EPOCHS = 1", code, flags=re.MULTILINE), names)
    plt.close("all")
    assert drawn == [2, 3]
    assert notebook.name in (ROOT / PAGE).read_text(encoding="utf-8")


def test_each_is_on_the_page_and_short() -> None:
    assert set(SHOWN) == {script.name for script in SCRIPTS}
    for script in SCRIPTS:
        assert len(script.read_text(encoding="utf-8").splitlines()) <= 80


def _process(script: Path, *arguments: str) -> str:
    """What a script prints in a process of its own."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    ).stdout
