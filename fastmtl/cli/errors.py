"""How a command ends that cannot go on: one line on stderr and an exit code.

0: done. 2: an option, a file or a directory that cannot be used, found before anything is written.
1: a run that failed on the way (disk full, out of memory, loss not finite). 130: stopped by SIGINT
or SIGTERM. Anything else is a bug and shows a traceback.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn

import typer
from rich.console import Console

FAILED, BAD_INPUT, STOPPED = 1, 2, 130
# Told to `--processes` alone: not this process, but another is the cause.
LOST = 75
# Set in the processes that `--processes` starts, and watches.
LAUNCHED = "FASTMTL_LAUNCHED"
MOST_WARNINGS = 10


class BadInput(Exception):
    """What a user gave cannot be used; the message may begin with an option's name in Python."""


def exit_with(message: str, code: int) -> NoReturn:
    """Tell a message in one line and exit."""
    typer.echo(f"fastmtl: {' '.join(message.split())}", err=True)
    sys.exit(code)


def warn(message: str) -> None:
    """Tell what does not stop a run."""
    typer.echo(f"fastmtl: warning: {' '.join(message.split())}", err=True)


def warn_of(messages: Sequence[str]) -> None:
    """Tell the first of many messages, and how many more there are."""
    for message in messages[:MOST_WARNINGS]:
        warn(message)
    if (more := len(messages) - MOST_WARNINGS) > 0:
        warn(f"and {more:,} more")


@contextmanager
def bad_input() -> Iterator[None]:
    """While options and data are read: what does not fit is the user's to mend."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise BadInput(str(error)) from error


@contextmanager
def failing() -> Iterator[None]:
    """While a run is under way: what the machine refuses ends it."""
    # Not with the module: help and version answer without them.
    import torch

    from fastmtl.data import DataError
    from fastmtl.training import DivergedError, RunError

    try:
        yield
    except (OSError, DivergedError) as error:
        exit_with(_reason(error), FAILED)
    except (RunError, DataError) as error:
        exit_with(str(error), BAD_INPUT)
    except torch.OutOfMemoryError as error:
        exit_with(f"out of GPU memory, a smaller --batch-size may help ({error})", FAILED)


def launched() -> bool:
    """Whether `--processes` started this process, and tells how it ends."""
    return LAUNCHED in os.environ


def is_elsewhere(error: Exception) -> bool:
    """Whether the run ended in another process."""
    from fastmtl.training.ranks import EndedElsewhere

    return isinstance(error, EndedElsewhere)


def exit_elsewhere(error: Exception) -> NoReturn:
    """End a process whose run ended in another, which said why unless it was killed."""
    from torch import distributed

    from fastmtl.training.ranks import LostProcess

    code = LOST if launched() else FAILED
    # The group of processes is left as it is, since ending it would wait for those that are gone,
    # and its threads, where Python ends while they run, abort the process.
    if distributed.is_available() and distributed.is_initialized():
        atexit.register(_leave, code)
    if not launched() and isinstance(error, LostProcess) and os.environ.get("RANK", "0") == "0":
        exit_with(str(error), FAILED)
    sys.exit(code)


def _leave(code: int) -> None:
    """End the process without what follows the last of Python's own."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def is_out_of_memory(error: Exception) -> bool:
    """Whether the machine's memory was not enough, for which PyTorch raises a RuntimeError."""
    return isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)


def one_process() -> None:
    """Raise BadInput where several processes were started, as torchrun does: each would do it all.

    Environment variable WORLD_SIZE says how many.
    """
    if (size := os.environ.get("WORLD_SIZE", "1")) not in ("", "1"):
        raise BadInput(
            f"WORLD_SIZE: expected one process, got {size} (torchrun?): start this command without "
            "it; of all commands train alone takes several, see docs/training.md"
        )


def show(text: str, *, nl: bool = True) -> None:
    """Print a command's result; where nobody reads it any more, say so and exit."""
    try:
        typer.echo(text, nl=nl)
    except BrokenPipeError:
        _unread()


def _unread() -> NoReturn:
    _drop_output()
    exit_with("nobody reads standard output any more", FAILED)


def _drop_output() -> None:
    """Let what is still in standard output's buffer go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


class TellingConsole(Console):
    """A console that tells when its reader leaves (`| head`), and does not exit in silence."""

    def on_broken_pipe(self) -> None:
        """What rich calls in place of exiting."""
        _unread()


class LastingConsole(Console):
    """A console whose reader may leave: the command goes on, and says so once."""

    def on_broken_pipe(self) -> None:
        """What rich calls in place of exiting."""
        self.quiet = True
        _drop_output()
        warn("nobody reads standard output any more; the run goes on")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"cannot write {error.filename}: {error.strerror}"
    return str(error)
