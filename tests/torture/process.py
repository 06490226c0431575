"""The command line in processes of its own that can be killed, without the time of an import."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fastmtl import cli
from fastmtl.reproduce import report
from fastmtl.training import epochs
from tests.figures import undrawn

CODES = (0, 1, 2, 130)
SECONDS = 30  # after which a command hangs
MOST_BYTES = 2 << 30


class Bad(Exception):
    """An outcome that may not be."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (None: killed on purpose) and what it said on stderr."""

    code: int | None
    said: str


def warm_up(arguments: list[str]) -> None:
    """Make processes cheap, and their writes many: `arguments` are what they will be like.

    Everything they would import is imported here, once; pictures, which take most of a small run's
    time, are not drawn; and runs store a checkpoint after every epoch, for kills to meet.
    """
    undrawn().start()
    for plot in ("plot_training_losses", "plot_task_weights"):
        setattr(report, plot, lambda *arguments: b"not drawn")
    epochs.CHECKPOINT_SECONDS = 0.0
    call_here(arguments)
    # What no process collects none has to copy.
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)


def call_here(arguments: list[str]) -> None:
    """A command in this process, whose output goes nowhere."""
    printed = os.dup(1)
    _print_nowhere()
    try:
        if _call(arguments) != 0:
            raise Bad(f"{' '.join(arguments)}: does not work")
    finally:
        sys.stdout.flush()
        os.dup2(printed, 1)
        os.close(printed)


class Command:
    """`fastmtl ARGUMENTS` begun in a forked process; `end` waits for it.

    Args:
        arguments: what is typed.
        prepare: called in the process before it begins.
    """

    def __init__(self, arguments: list[str], prepare: Callable[[], None] = lambda: None) -> None:
        self.arguments = arguments
        # A pipe carries what is said even where no disk does.
        self.hear, said = os.pipe()
        self.said = b""
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            self._run(prepare, said)
        os.close(said)
        os.set_blocking(self.hear, False)

    def _run(self, prepare: Callable[[], None], said: int) -> None:
        code = 70
        try:
            _print_nowhere()
            os.dup2(said, 2)
            faulthandler.register(signal.SIGUSR1, file=2)
            _take_no_more_than(MOST_BYTES)
            prepare()
            code = _call(self.arguments)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(code)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal, whatever it does."""
        os.kill(self.pid, number)

    def end(self) -> Ended:
        """Wait for the end; Bad for a traceback, a hang, more than one line, or too much memory."""
        try:
            status, usage = self._wait()
        finally:
            os.close(self.hear)
        said = self.said.decode(errors="replace")
        if os.WIFSIGNALED(status):
            if os.WTERMSIG(status) in (signal.SIGKILL, signal.SIGTERM):
                return Ended(None, said)
            raise Bad(f"{self}: died of {signal.Signals(os.WTERMSIG(status)).name}\n{said}")
        code = os.WEXITSTATUS(status)
        if usage.ru_maxrss * 1024 > MOST_BYTES:
            raise Bad(f"{self}: took {usage.ru_maxrss >> 10} MiB")
        lines = [line for line in said.splitlines() if not line.startswith("fastmtl: warning: ")]
        plain = all(line.startswith("fastmtl: ") for line in lines)
        if code not in CODES or not plain or len(lines) != int(code != 0):
            raise Bad(f"{self}: ended with {code}\n{said}")
        return Ended(code, said)

    def _wait(self) -> tuple[int, resource.struct_rusage]:
        waited, before = 0.0, time.monotonic()
        while True:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            with contextlib.suppress(BlockingIOError):
                while part := os.read(self.hear, 1 << 16):
                    self.said += part
            if pid:
                return status, usage
            # A machine that stood still meanwhile is no hang.
            now = time.monotonic()
            waited, before = waited + min(now - before, 0.1), now
            if waited > SECONDS:
                os.kill(self.pid, signal.SIGUSR1)
                time.sleep(1)
                self.kill()
                os.waitpid(self.pid, 0)
                trace = os.read(self.hear, 1 << 16).decode(errors="replace")
                raise Bad(f"{self}: hangs\n{trace}")
            time.sleep(0.002)

    def __str__(self) -> str:
        return "fastmtl " + " ".join(self.arguments)


def _call(arguments: list[str]) -> int:
    """The exit code of a command of this process."""
    sys.argv = ["fastmtl", *arguments]
    try:
        cli.main()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    return 0


def _take_no_more_than(size: int) -> None:
    """Limit the memory of this process to so much beside what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + size
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _print_nowhere() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
