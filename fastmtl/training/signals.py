"""Stopping a run between two steps when the user or the system asks for it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):
    """A run was asked to stop (SIGINT or SIGTERM); what it had completed is stored."""


class StopRequest:
    """Whether a stop was asked for."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def check(self) -> None:
        """Raise Interrupted if a stop was asked for."""
        if self.signal is not None:
            raise Interrupted(self.signal.name)

    def settle(self) -> None:
        """Leave nothing under way that the last check began."""


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Inside the block the first SIGINT or SIGTERM only sets the request; the second acts at once.

    Outside the main thread, which alone may handle signals, nothing is caught.

    Examples:
        >>> with stop_on_signals() as stop:
        ...     stop.check()
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    caught = (signal.SIGINT, signal.SIGTERM)
    # None stands for a handler that was not installed by Python.
    previous = {number: signal.getsignal(number) or signal.SIG_DFL for number in caught}

    def handle(number: int, frame: FrameType | None) -> None:
        request.signal = signal.Signals(number)
        for each, handler in previous.items():
            signal.signal(each, handler)

    for number in caught:
        signal.signal(number, handle)
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
