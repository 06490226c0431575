"""What goes wrong in a process at its n-th call to the disk: it is killed, or the disk fails."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Callable
from typing import Any

# The calls by which files come, last and go. Of writing to them there is `largest_file`.
CALLS = ("open", "fsync", "replace", "unlink", "mkdir", "ftruncate", "pwrite")
FULL, READ_ONLY = errno.ENOSPC, errno.EROFS


def die() -> None:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def fail(number: int) -> Callable[[], None]:
    """Raises the OSError of this number."""

    def act() -> None:
        raise OSError(number, os.strerror(number))

    return act


def from_call(count: int, act: Callable[[], None], *, once: bool = False) -> None:
    """Have this process `act` before its disk call number `count`, 0 the first, and all later ones.

    With `once` later ones do what they should.
    """
    calls = 0

    def wrapped(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == count + 1 or (calls > count and not once):
                act()
            return real(*arguments, **options)

        return call

    for name in CALLS:
        setattr(os, name, wrapped(getattr(os, name)))


def count_calls(action: Callable[[], object]) -> int:
    """How many disk calls an action makes in this process."""
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1

    real = {name: getattr(os, name) for name in CALLS}
    from_call(0, count)
    try:
        action()
    finally:
        for name, function in real.items():
            setattr(os, name, function)
    return calls


def largest_file(size: int) -> None:
    """Have this process write no file beyond `size`, as on a disk that fills up."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
