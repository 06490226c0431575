"""What a run leaves behind: one JSON line for each thing that happened, written as it happens.

Several processes append to one file, a whole line at a time. A process that dies loses nothing but
what it had under way, and that is known too: every test and figure is announced before it begins.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# A context of CUDA that met an illegal access serves nobody any more: its process ends with this
# status, and another one goes on with what is left.
POISONED = 86
# An item is announced, ends with an outcome, or is to be tried again.
_OF_ITEMS = ("begin", "item", "again")
_PATH, _PART = "FASTMTL_GPU_JOURNAL", "FASTMTL_GPU_PART"


class Journal:
    """A file of JSON lines; `part` is which process of the run writes them."""

    def __init__(self, path: Path, part: str = "") -> None:
        self.path, self.part = path, part

    @classmethod
    def of_this_process(cls) -> Journal:
        """The journal that the run hands to its processes; a process started by hand has none."""
        return cls(Path(os.environ.get(_PATH, os.devnull)), os.environ.get(_PART, ""))

    def environment(self) -> dict[str, str]:
        """By which a process of the run finds it."""
        return {_PATH: str(self.path), _PART: self.part}

    def write(self, kind: str, **fields: Any) -> None:
        """Append a line."""
        line = json.dumps({"kind": kind, "part": self.part, **fields}) + "\n"
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)

    def lines(self) -> Iterator[dict[str, Any]]:
        """All lines so far, without one that was cut off."""
        if not self.path.is_file():
            return
        for line in self.path.read_text(errors="replace").splitlines():
            try:
                fields = json.loads(line)
            except ValueError:
                continue
            if isinstance(fields, dict) and "kind" in fields:
                yield fields

    def begun(self) -> set[str]:
        """The items of this part that need no other try: done, or begun by a process that died."""
        return set(self._last("begin", "item"))

    def fatal(self) -> set[str]:
        """The items of this part that ended their process."""
        last = self._last("item").items()
        return {name for name, line in last if line["outcome"] == "crashed"}

    def left_open(self) -> list[dict[str, Any]]:
        """How the items of this part were announced that were begun and never ended."""
        return list(self._last("begin").values())

    def try_again(self) -> None:
        """Let the items that are open be begun anew, once each: not they ended their process."""
        tried = {line["name"] for line in self._of_part() if line["kind"] == "again"}
        for name in (line["name"] for line in self.left_open()):
            if name in tried:
                self.write("item", name=name, outcome="crashed", message="twice not to its end")
            else:
                self.write("again", name=name)

    def _last(self, *kinds: str) -> dict[str, dict[str, Any]]:
        """The items of this part whose last line is of one of these kinds, with that line."""
        last = {line["name"]: line for line in self._of_part() if line["kind"] in _OF_ITEMS}
        return {name: line for name, line in last.items() if line["kind"] in kinds}

    def _of_part(self) -> Iterator[dict[str, Any]]:
        return (line for line in self.lines() if line["part"] == self.part)

    def begin(self, name: str, seconds: float) -> None:
        """Announce an item; if it is not ended in time, the process is, with all its stacks shown.

        The watch is a thread that needs no interpreter lock, so that a call that never returns to
        Python is ended too.
        """
        self.write("begin", name=name, at=time.time(), seconds=seconds)
        faulthandler.dump_traceback_later(seconds, exit=True, file=_STDERR)

    def end(self, name: str, outcome: str, **fields: Any) -> None:
        """Record what became of the item that began last."""
        faulthandler.cancel_dump_traceback_later()
        self.write("item", name=name, outcome=outcome, **fields)

    @contextmanager
    def item(self, name: str, seconds: float) -> Iterator[None]:
        """A block that is an item; an exception is its outcome, and goes no further."""
        self.begin(name, seconds)
        try:
            yield
        except Exception as error:
            self.end(name, "failed", message=f"{type(error).__name__}: {error}"[:2000])
            leave_if_poisoned()
        else:
            self.end(name, "passed")


def synchronize() -> None:
    """Wait for the device, where this process has one; raises what went wrong there."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def leave_if_poisoned(check: Callable[[], None] = synchronize) -> None:
    """After an error: end this process if its CUDA context is of no use any more."""
    try:
        check()
    except Exception as error:
        print(f"the CUDA context is lost: {error}", file=_STDERR, flush=True)
        os._exit(POISONED)


# Of its own, before pytest takes the process's.
_STDERR = os.fdopen(os.dup(2), "w")
