"""A run's own ways of going wrong: parts that crash, hang and are killed, and what is left then."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import __main__ as run
from benchmarks.gpu import journal, report
from benchmarks.gpu.journal import Journal
from benchmarks.gpu.record import JOURNAL, record_of
from benchmarks.gpu.runner import ROOT, Part, Stage
from benchmarks.gpu.stages import OPS, stages

# Three items: one that is well, one that does what a test says, one after it.
ITEMS = """
import os, signal, time
from benchmarks.gpu.journal import Journal, leave_if_poisoned
journal = Journal.of_this_process()
def trouble():
    {trouble}
def poisoned():
    def check(): raise RuntimeError("an illegal memory access")
    leave_if_poisoned(check)
for name, act in (("first", int), ("trouble", trouble), ("last", int)):
    if name not in journal.begun():
        with journal.item(name, {seconds}):
            act()
journal.write("end")
"""


def part(trouble: str, name: str = "part", seconds: float = 20, each: float = 10) -> Part:
    """A process with items, of which the second is in trouble."""
    text = ITEMS.format(trouble=trouble, seconds=each)
    return Part(name, [sys.executable, "-c", text], seconds)


def go(out: Path, *parts: Part, arguments: tuple[str, ...] = (), **stage: Any) -> dict[str, Any]:
    """Run the parts as one stage; the record of what they left."""
    limit = stage.pop("seconds", 60)
    run.main(["--out", str(out), *arguments], [Stage("stage", parts, limit, **stage)])
    (path,) = out.glob("gpu-*.json")
    assert len(list(out.iterdir())) <= 8
    record: dict[str, Any] = json.loads(path.read_text())
    assert (out / "report.md").read_text() == report.summary(record)
    return record


def outcomes(record: dict[str, Any]) -> list[tuple[str, dict[str, int]]]:
    return [(part["outcome"], part["items"]) for part in record["parts"]]


def test_all_is_well(tmp_path: Path) -> None:
    parts = [part("pass", f"part {i}") for i in range(3)]
    record = go(tmp_path, *parts, side_by_side=2)
    assert outcomes(record) == [("passed", {"passed": 3})] * 3
    assert record["errors"] == []


def test_what_fails_costs_itself_alone(tmp_path: Path) -> None:
    record = go(tmp_path, part("raise ValueError('too bad')"))
    assert outcomes(record) == [("failed", {"passed": 2, "failed": 1})]
    assert record["errors"] == ["part: trouble: failed: ValueError: too bad"]


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("os.abort()", "signal SIGABRT"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "signal SIGKILL"),
        ("os._exit(3)", "exit status 3"),
        ("poisoned()", "lost its CUDA context"),
        ("time.sleep(60)", "took longer than 1 s"),
    ],
)
def test_what_ends_its_process_is_not_tried_again(
    tmp_path: Path, trouble: str, message: str
) -> None:
    late = "sleep" in trouble
    record = go(tmp_path, part(trouble, each=1 if late else 10))
    assert outcomes(record) == [("failed", {"passed": 2, "crashed": 1})]
    assert record["parts"][0]["seconds"] >= late  # of all processes of the part
    assert record["errors"] == [f"part: trouble: crashed: {message}"]


def test_a_process_that_never_begins(tmp_path: Path) -> None:
    parts = [Part("broken", [sys.executable, "-c", "oh no"], 20), part("pass", "other")]
    record = go(tmp_path, *parts)
    assert outcomes(record) == [("crashed", {}), ("passed", {"passed": 3})]
    assert record["errors"] == ["broken: crashed (exit status 1)"]
    assert "SyntaxError" in (tmp_path / "report.md").read_text()


def test_a_part_has_its_time(tmp_path: Path) -> None:
    parts = [part("time.sleep(60)", seconds=2), part("pass", "other")]
    record = go(tmp_path, *parts)
    expected = {"passed": 1, "unfinished": 1}
    assert outcomes(record) == [("out of its time", expected), ("passed", {"passed": 3})]
    record = go(tmp_path, *parts, arguments=("--resume",))
    assert outcomes(record)[0] == ("out of its time", {"passed": 1, "crashed": 1})
    record = go(tmp_path, *parts, arguments=("--resume",))
    assert outcomes(record)[0] == ("failed", {"passed": 2, "crashed": 1})


def test_the_deadline_leaves_what_a_later_call_takes_up(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    wait = f"time.sleep(0 if os.path.exists({str(flag)!r}) else 60)"
    parts = [part(wait, "slow"), part("pass", "other")]
    start = time.monotonic()
    record = go(tmp_path / "one", *parts, arguments=("--deadline", "6", "--commit", "abc"))
    assert time.monotonic() - start < 50
    assert outcomes(record) == [("deadline", {"passed": 1, "unfinished": 1}), ("not reached", {})]
    assert record["commit"] == "abc"
    flag.touch()
    resume = ("--resume", str(tmp_path / "one"), "--commit", "other")
    record = go(tmp_path / "two", *parts, arguments=resume)
    assert outcomes(record) == [("passed", {"passed": 3})] * 2
    assert record["commit"] == "abc"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_itself(
    tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(report, "PAGE", tmp_path / "gpu.md")
    flag, trouble = tmp_path / "flag", "open(FLAG, 'w').close(); time.sleep(60)"
    child = part(trouble.replace("FLAG", repr(str(flag))))
    out = tmp_path / "out"
    text = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell has background jobs ignore
from benchmarks.gpu import __main__ as run
from benchmarks.gpu.runner import Part, Stage
parts = [Part("part", {list(child.command)!r}, 60)]
sys.exit(run.main(["--out", {str(out)!r}], [Stage("stage", parts, 60)]))
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", text], cwd=ROOT, env=environment)
    for _ in range(600):
        if flag.exists():
            break
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(20) != 0
    journal = Journal(out / JOURNAL)
    expected = "unfinished" if number == signal.SIGKILL else "interrupted"
    assert outcomes(record_of(journal)) == [(expected, {"passed": 1, "unfinished": 1})]
    assert report.main([str(out)]) == 0
    assert expected in (out / "report.md").read_text()
    assert len(list(report.RESULTS.iterdir())) == 1
    assert "Unknown device" in report.PAGE.read_text()


TESTS = """
import os, pytest, time
@pytest.mark.parametrize("how", ["well", "wrong", "dead", "late"])
def test_some(how):
    assert how != "wrong", "this is wrong"
    if how == "dead":
        os.abort()
    if how == "late":
        time.sleep(60)
def test_skipped():
    pytest.skip("for a reason")
def test_last():
    pass
"""


def test_a_line_for_every_test(tmp_path: Path) -> None:
    file = tmp_path / "test_some.py"
    file.write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "benchmarks.gpu.outcomes"]
    command += ["-c", os.devnull, "--rootdir", str(tmp_path)]
    seconds = {"FASTMTL_GPU_TEST_SECONDS": "3"}
    tests = Part("tests", [*command, str(file)], 60, environment=seconds)
    record = go(tmp_path / "out", tests)
    assert record["tests"]["counts"] == {"passed": 2, "failed": 3, "skipped": 1}
    assert record["tests"]["passed"] == ["test_some::test_some[well]", "test_some::test_last"]
    ((outcome, items),) = outcomes(record)
    assert outcome == "failed"
    assert items == {"passed": 2, "failed": 1, "crashed": 2, "skipped": 1}
    wrong, dead, late = record["errors"]
    assert "this is wrong" in wrong
    assert "signal SIGABRT" in dead
    assert "took longer than 3 s" in late


def test_a_journal_that_was_cut_off(tmp_path: Path) -> None:
    lines = Journal(tmp_path / JOURNAL, "part")
    lines.write("item", name="one", outcome="passed")
    with lines.path.open("a") as file:
        file.write('{"kind": "item", "na')
    assert [line["name"] for line in lines.lines()] == ["one"]
    lines = Journal(run._journal(tmp_path, True).path, "part")
    lines.write("item", name="two", outcome="passed")
    assert [line["name"] for line in lines.lines()] == ["one", "two"]


@pytest.mark.parametrize("where", ["no git", "no repository", "another's repository"])
def test_the_commit_without_git(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    monkeypatch.setattr(run, "ROOT", inner)
    if where == "no git":
        monkeypatch.setenv("PATH", str(tmp_path))
    if where == "another's repository":
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert run._commit(None) == ("unknown", None)
    (inner / "COMMIT").write_text("abc\n")
    assert run._commit(None) == ("abc", None)
    assert run._commit("def") == ("def", None)


def test_the_stages_in_their_order() -> None:
    names = [stage.name for stage in stages()]
    assert names == [
        *("build", "smoke", "parity-cuda", "figures", "device", "parity-triton", "sanitizer")
    ]
    parts = [part.name for stage in stages() for part in stage.parts]
    assert len(parts) == len(set(parts))
    with pytest.raises(SystemExit, match="--only: expected some of build, smoke"):
        run.main(["--only", "smoke,none"])


def test_every_parity_test_has_one_part() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "tests/gpu/test_parity.py"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    names = [line for line in result.stdout.splitlines() if "::" in line]
    assert names
    (stage,) = [stage for stage in stages() if stage.name == "parity-cuda"]
    assert len(stage.parts) == len(OPS) + 1

    def chosen(expression: str, name: str) -> bool:
        """As pytest's -k does it."""
        words = r"\b(?!(?:and|or|not)\b)\w+"
        return bool(eval(re.sub(words, lambda word: str(word[0] in name), expression)))

    for name in names:
        parts = [part.name for part in stage.parts if chosen(part.command[-1], name)]
        assert len(parts) == ("cuda" in name), (name, parts)


def test_nobody_but_a_run_has_a_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(journal._PATH, raising=False)
    lines = Journal.of_this_process()
    with lines.item("one", 10):
        pass
    assert lines.begun() == set()
