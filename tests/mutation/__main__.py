"""Whether the suite notices small faults: `python -m tests.mutation [--list] [--only NAME ...]`.

One at a time, every fault of `tests.mutation.faults` is written into the working tree, the native
core is built anew where it is one of csrc/, and the tests that should notice it run until one
fails. The fault is taken out again whatever happens, Ctrl-C included; the tree should not be edited
meanwhile. Ends with 1 if more than two faults survive, or one cannot be tried.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from tests.mutation.faults import FAULTS, Fault

ROOT = Path(__file__).resolve().parents[2]
MOST_SURVIVORS = 2
SECONDS = 600  # that a fault may take: some would never end
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    "PYTHONPATH": str(ROOT),
    "FASTMTL_NATIVE": "on",  # what does not compile is an error
    # A file is changed back within the second that Python tells versions of it apart by.
    "PYTHONDONTWRITEBYTECODE": "1",
}
PYTEST = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=no", "-rf"]


class CannotTry(Exception):
    """A fault that is none: its text is not found, or it does not compile."""


@dataclass(frozen=True)
class Outcome:
    """What became of a fault: the test that failed, or empty if none did."""

    killed_by: str
    seconds: float


def main() -> int:
    """Try the faults that the command line names; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--list", action="store_true", help="name the faults and where they are")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="try these alone")
    options = parser.parse_args()
    if unknown := set(options.only or ()) - {fault.name for fault in FAULTS}:
        parser.error(f"no fault of the name {', '.join(sorted(unknown))}; see --list")
    faults = [fault for fault in FAULTS if not options.only or fault.name in options.only]
    if options.list:
        for fault in faults:
            print(f"{fault.name:40} {fault.path}")
        return 0
    try:
        return _try_all(faults)
    except CannotTry as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _try_all(faults: list[Fault]) -> int:
    for fault in faults:
        _mutated(fault)
    native = any(fault.is_native for fault in faults)
    if native:
        _build()
    print(f"{len(faults)} faults; first their tests without any", flush=True)
    if failed := _failing_test(sorted({test for fault in faults for test in fault.tests})):
        raise CannotTry(f"{failed} fails without a fault")
    outcomes = {}
    with _reverting_on_signals(native):
        for fault in faults:
            outcomes[fault.name] = _try(fault)
            _print(fault, outcomes[fault.name])
    survivors = [fault for fault in faults if not outcomes[fault.name].killed_by]
    print(f"{len(faults) - len(survivors)} of {len(faults)} faults killed", end="")
    print(f"; survived: {', '.join(fault.name for fault in survivors)}" if survivors else "")
    for fault in survivors:
        print(f"  {fault.name}: {fault.excuse or 'no test notices it'}")
    return int(len(survivors) > MOST_SURVIVORS)


def _print(fault: Fault, outcome: Outcome) -> None:
    fate = f"killed by {outcome.killed_by}" if outcome.killed_by else "SURVIVED"
    print(f"{fault.name:40} {fault.path:44} {outcome.seconds:4.0f} s  {fate}", flush=True)


def _try(fault: Fault) -> Outcome:
    start = time.monotonic()
    with _applied(fault):
        killed_by = _failing_test(fault.tests, SECONDS)
    return Outcome(killed_by, time.monotonic() - start)


def _mutated(fault: Fault) -> tuple[str, str]:
    """The text of the fault's file without it and with it."""
    text = (ROOT / fault.path).read_text()
    if (found := text.count(fault.before)) != 1:
        raise CannotTry(f"{fault.name}: expected its text once in {fault.path}, found it {found} x")
    return text, text.replace(fault.before, fault.after)


@contextmanager
def _applied(fault: Fault) -> Iterator[None]:
    """The fault in the working tree, and in the native core, inside the block."""
    text, mutated = _mutated(fault)
    path = ROOT / fault.path
    core = list((ROOT / "fastmtl").glob("_cpu*.so")) if fault.is_native else []
    copies = {file: file.with_suffix(".sound") for file in core}
    for file, copy in copies.items():
        shutil.copy2(file, copy)
    try:
        path.write_text(mutated)
        if fault.is_native:
            _build()
        yield
    finally:
        # Written anew, so that the next build compiles it anew.
        path.write_text(text)
        for file, copy in copies.items():
            copy.replace(file)


def _build() -> None:
    """The native core from the sources as they are; of what has not changed nothing is compiled."""
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    result = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    if result.returncode:
        raise CannotTry(f"the native core does not build:\n{result.stdout}{result.stderr}")


def _failing_test(tests: Sequence[str], seconds: float | None = None) -> str:
    """The first of the tests that fails or, if it is given, is not done in time; or empty."""
    try:
        result = subprocess.run(
            [*PYTEST, *tests],
            cwd=ROOT,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return f"the clock ({seconds} s)"
    if result.returncode == 0:
        return ""
    if found := re.search(r"^(?:FAILED|ERROR) (\S+)", result.stdout, re.MULTILINE):
        return found[1]
    if result.returncode < 0:
        return f"signal {-result.returncode}"
    raise CannotTry(f"pytest {' '.join(tests)}:\n{result.stdout}{result.stderr}")


@contextmanager
def _reverting_on_signals(native: bool) -> Iterator[None]:
    """Lets SIGTERM and SIGHUP end the program as Ctrl-C does, and builds the sound core at last
    where a fault was in it."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if native:
            _build()


if __name__ == "__main__":
    sys.exit(main())
