"""Runs the parts of a run as processes, each within its time, and knows how each of them ended."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from benchmarks.gpu.journal import POISONED, Journal

ROOT = Path(__file__).resolve().parents[2]
MOST_OUTPUT = 1 << 18  # bytes of a process's output that are kept: its beginning and its end
_LEAST = 3.0  # seconds left of the deadline, below which nothing is begun
_MOST_TRIES = 20  # of a part that dies and has come further every time


@dataclass(frozen=True)
class Part:
    """A process. With `items` it writes its own to the journal, the last line an "end", and goes on
    where it left off when it is started again; otherwise its exit status is all there is."""

    name: str
    command: Sequence[str]
    seconds: float
    items: bool = True
    always: bool = False  # also when a run goes on: what it does lasts no longer than the machine
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """Parts of one kind, of which some may run side by side, and the seconds for all of them."""

    name: str
    parts: Sequence[Part]
    seconds: float
    side_by_side: int = 1


@dataclass
class _Running:
    part: Part
    process: subprocess.Popen[bytes]
    journal: Journal
    output: IO[bytes]
    start: float
    known: int  # items that had begun before


class Runner:
    """Takes stages through; `report` is called whenever a part has ended."""

    def __init__(
        self, journal: Journal, log: Path, deadline: float, report: Callable[[], None]
    ) -> None:
        self.journal, self.log, self.report = journal, log, report
        self.deadline = time.monotonic() + deadline
        self._running: list[_Running] = []

    def run(self, stages: Sequence[Stage]) -> None:
        """All stages in order. Whatever ends this call, no process stays behind."""
        parts = [part for stage in stages for part in stage.parts]
        for part in parts:  # whose process died with that of an earlier run
            Journal(self.journal.path, part.name).try_again()
        self.journal.write("plan", parts=[part.name for part in parts])
        done = self._done()
        try:
            for stage in stages:
                parts = [part for part in stage.parts if part.always or part.name not in done]
                self._run_stage(replace(stage, parts=parts))
        finally:
            self._stop("interrupted")
            self.report()

    def _done(self) -> set[str]:
        """The parts that ended for good in this run or those it goes on from."""
        lines = (line for line in self.journal.lines() if line["kind"] == "part")
        return {line["name"] for line in lines if not line.get("unfinished")}

    def _run_stage(self, stage: Stage) -> None:
        waiting = list(stage.parts)
        end = min(time.monotonic() + stage.seconds, self.deadline)
        while waiting or self._running:
            while waiting and len(self._running) < stage.side_by_side:
                if end - time.monotonic() < _LEAST:
                    waiting.clear()
                    break
                self._start(waiting.pop(0))
            for running in list(self._running):
                if running.process.poll() is not None:
                    if self._ended(running) and end - time.monotonic() >= _LEAST:
                        waiting.insert(0, running.part)
                elif time.monotonic() - running.start > running.part.seconds:
                    self._kill(running, "out of its time")
            if time.monotonic() >= end:
                why = "deadline" if end == self.deadline else "out of the stage's time"
                self._stop(why)
            time.sleep(0.02)

    def _start(self, part: Part) -> None:
        journal = Journal(self.journal.path, part.name)
        known = len(journal.begun())
        # PYTHONPATH for what is built in place, and for the tests beside it.
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
        output = tempfile.TemporaryFile()  # noqa: SIM115 (of the part, not of this function)
        process = subprocess.Popen(
            part.command,
            cwd=ROOT,
            env=os.environ | environment | part.environment | journal.environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_leading_a_group,
        )
        self._running.append(_Running(part, process, journal, output, time.monotonic(), known))

    def _ended(self, running: _Running) -> bool:
        """Record how a process ended; whether to start it once more for the items that are left."""
        code, part, journal = running.process.returncode, running.part, running.journal
        self._running.remove(running)
        _kill_group(running.process.pid)
        lines = [line for line in journal.lines() if line["part"] == part.name]
        complete = part.items and any(line["kind"] == "end" for line in lines)
        if (code == 0 and not part.items) or complete:
            bad = any(line.get("outcome") in ("failed", "crashed") for line in lines)
            self._record(running, "failed" if bad else "passed", code=code)
            return False
        how = "lost its CUDA context" if code == POISONED else _how(code)
        self._close_items(running, how)
        tries = 1 + sum(line["kind"] == "died" for line in lines)
        if part.items and tries < _MOST_TRIES and len(journal.begun()) > running.known:
            journal.write("died", how=how, seconds=_since(running.start))
            self._keep_output(running)
            return True
        self._record(running, "failed" if code > 0 and not part.items else "crashed", how=how)
        return False

    def _kill(self, running: _Running, why: str) -> None:
        _kill_group(running.process.pid)
        running.process.wait()
        self._running.remove(running)
        running.journal.try_again()  # no fault of the item under way, which has a limit of its own
        self._record(running, why, unfinished=True)

    def _stop(self, why: str) -> None:
        for running in list(self._running):
            self._kill(running, why)

    def _close_items(self, running: _Running, how: str) -> None:
        for line in running.journal.left_open():
            seconds = line["seconds"]
            late = time.time() - line["at"] >= seconds
            message = f"took longer than {seconds:g} s" if late else how
            running.journal.write("item", name=line["name"], outcome="crashed", message=message)

    def _record(self, running: _Running, outcome: str, **fields: object) -> None:
        """Record how a part ended, with the seconds of all its processes, those that died too."""
        died = (line for line in self.journal.lines() if line["kind"] == "died")
        before = sum(line.get("seconds", 0) for line in died if line["part"] == running.part.name)
        seconds = round(before + _since(running.start), 1)
        line = {"name": running.part.name, "outcome": outcome, "seconds": seconds, **fields}
        output = self._keep_output(running)
        if outcome != "passed":
            line["output"] = output
        self.journal.write("part", **line)
        print(running.part.name, outcome, seconds, "s", flush=True)
        self.report()

    def _keep_output(self, running: _Running) -> str:
        """Append a process's output to the log, of a long one both ends; its last lines."""
        running.output.seek(0)
        text = running.output.read()
        if len(text) > MOST_OUTPUT:
            half = MOST_OUTPUT // 2
            text = text[:half] + b"\n[...]\n" + text[-half:]
        with self.log.open("ab") as log:
            log.write(f"\n===== {running.part.name}\n".encode() + text)
        return text[-3000:].decode(errors="replace")


def _since(start: float) -> float:
    return round(time.monotonic() - start, 1)


def _how(code: int) -> str:
    if code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit status {code}"


def _leading_a_group() -> None:
    """In the child: a group of its own, so that all it starts can be ended with it, and an end when
    this process ends, which may be killed outright."""
    os.setpgrp()
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
