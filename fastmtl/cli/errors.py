"""How a command ends that cannot go on: one line on stderr and an exit code.

0: done. 2: an option, a file or a directory that cannot be used, found before anything is written.
1: a run that failed on the way (disk full, out of memory, loss not finite). 130: stopped by SIGINT
or SIGTERM. Anything else is a bug and shows a traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch
import typer

from fastmtl.training import DivergedError, RunError

FAILED, BAD_INPUT, STOPPED = 1, 2, 130


class BadInput(Exception):
    """What a user gave cannot be used; the message may begin with an option's name in Python."""


def exit_with(message: str, code: int) -> NoReturn:
    """Tell a message in one line and exit."""
    typer.echo(f"fastmtl: {' '.join(message.split())}", err=True)
    sys.exit(code)


def warn(message: str) -> None:
    """Tell what does not stop a run."""
    typer.echo(f"fastmtl: warning: {message}", err=True)


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
    try:
        yield
    except (OSError, DivergedError) as error:
        exit_with(_reason(error), FAILED)
    except RunError as error:
        exit_with(str(error), BAD_INPUT)
    except torch.OutOfMemoryError as error:
        exit_with(f"out of GPU memory, a smaller --batch-size may help ({error})", FAILED)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"cannot write {error.filename}: {error.strerror}"
    return str(error)
