"""Whether runs outlast what can befall them: `python -m tests.torture [--kills 1000]`.

Small runs and reproductions are killed at random moments, and at every call to the disk in turn,
and begun again until they finish; their disk fills up or becomes read-only at every call; their
files are cut and flipped; two writers share a directory; directories vanish. In the end each has
the result of one left alone, bit for bit, and whatever was refused was so in one line. Ends with 1
if anything else came.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fastmtl.cli.errors import STOPPED
from fastmtl.training.lock import NAME as LOCK
from tests.torture.breaking import (
    FULL,
    READ_ONLY,
    count_calls,
    die,
    fail,
    from_call,
    largest_file,
)
from tests.torture.mutate import damage_bytes
from tests.torture.process import Bad, Command, call_here, warm_up
from tests.torture.runs import epochs, go_on, reproduce, same_reproduction, same_run

STATE = ["config.json", "model.safetensors", "checkpoint.safetensors"]
# SIGTERM, as from a scheduler, lets a run store where it is; SIGKILL does not.
SIGNALS = [signal.SIGKILL] * 4 + [signal.SIGTERM]
SIZES = [0, 1, 100, 1500, 4096, 20_000, 60_000, 100_000]


class Torture:
    """The trials of one kind of work, in a directory where one such work was left alone.

    Args:
        folder: an empty directory.
        seed: of everything random.
        begin: gives the command that begins the work in a directory, or goes on with it.
        same: raises Bad if the work in a directory has another result than that in the second.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        begin: Callable[[Path], list[str]],
        same: Callable[[Path, Path], None],
    ) -> None:
        self.rng = random.Random(seed)
        self.begin, self.same = begin, same
        self.out, self.reference = folder / "out", folder / "reference"
        self.calls = count_calls(lambda: call_here(begin(folder / "counted")))
        start = time.monotonic()
        self.finish(self.reference)
        self.seconds = time.monotonic() - start

    def kills(self, count: int) -> str:
        """Kill the work at random moments, and go on with it until it finishes."""
        killed = finished = 0
        while killed < count:
            before = epochs(self.out)
            command = Command(self.begin(self.out))
            time.sleep(self.rng.random() * 1.1 * self.seconds)
            command.kill(self.rng.choice(SIGNALS))
            ended = command.end()
            if ended.code not in (None, 0, STOPPED):
                raise Bad(f"{command}: ended with {ended.code}\n{ended.said}")
            if epochs(self.out) < before:
                raise Bad(f"{command}: had {before} epochs, has {epochs(self.out)}")
            killed += ended.code != 0
            if ended.code == 0 or killed == count:
                self.end()
                finished += 1
        return f"{finished} finished"

    def kills_by_call(self, step: int) -> str:
        """Kill the work before each of its calls to the disk, and what goes on with it too."""
        for count in range(0, self.calls, step):
            for again in (count, count // 2):
                Command(self.begin(self.out), partial(from_call, again, die)).end()
            self.end()
        return f"every {step} of {self.calls}"

    def bad_disks(self, step: int) -> str:
        """A disk that is full, read-only, or fails once, from each call; one that fills up."""
        for act, once in ((fail(FULL), False), (fail(FULL), True), (fail(READ_ONLY), False)):
            for count in range(0, self.calls, step):
                Command(self.begin(self.out), partial(from_call, count, act, once=once)).end()
                self.end(locks_stay=True)
        for size in SIZES:
            Command(self.begin(self.out), partial(largest_file, size)).end()
            self.end()
        return f"every {step} of {self.calls} calls in 3 ways, and {len(SIZES)} sizes"

    def damages(self, count: int) -> str:
        """Damage a file and go on: the same result, or a refusal."""
        refused = 0
        for _ in range(count):
            shutil.copytree(self.reference, self.out)
            # With its result a run of a reproduction is not looked at again.
            for path in self.out.rglob("result.json"):
                path.unlink()
            files = sorted(path for path in self.out.rglob("*") if path.name in STATE)
            damage_bytes(self.rng.choice(files), self.rng)
            if Command(self.begin(self.out)).end().code == 0:
                self.same(self.out, self.reference)
            else:
                refused += 1
            shutil.rmtree(self.out)
        return f"{refused} refused, the others mended"

    def two_writers(self, count: int) -> str:
        """Two processes in one directory, of which one at a time may write."""
        for _ in range(count):
            first = Command(self.begin(self.out))
            time.sleep(self.rng.random() * 1.1 * self.seconds)
            second = Command(self.begin(self.out))
            if 0 not in [command.end().code for command in (first, second)]:
                raise Bad(f"{first}: two writers, and neither finished")
            self.end()
        return "one of each finished"

    def vanishing(self, count: int) -> str:
        """Remove the directory during the work, or put another in its place."""
        for number in range(count):
            command = Command(self.begin(self.out))
            time.sleep(self.rng.random() * self.seconds)
            shutil.rmtree(self.out, ignore_errors=True)
            if number % 2:
                self.out.mkdir(exist_ok=True)
            command.end()
            shutil.rmtree(self.out, ignore_errors=True)
        return "each said so, or had finished"

    def unwritable(self) -> str:
        """A directory without the right to write, which root has; places that are no directory."""
        self.out.mkdir(mode=0o555)
        places = [Path("/proc/run"), Path("/dev/null/run"), self.out / "run"]
        for place in places[: 2 if os.geteuid() == 0 else 3]:
            if Command(self.begin(place)).end().code == 0:
                raise Bad(f"{place}: written to")
        self.out.rmdir()
        return "refused"

    def end(self, *, locks_stay: bool = False) -> None:
        """Go on to the end, which must be that of the reference; remove the work.

        A lock that a disk did not let go of may stay: it binds nobody, and nobody looks again at a
        run of a reproduction that has its result.
        """
        self.finish(self.out)
        for lock in self.out.rglob(LOCK) if locks_stay else ():
            lock.unlink()
        self.same(self.out, self.reference)
        shutil.rmtree(self.out)

    def finish(self, out: Path) -> None:
        """Go on, and come to the end."""
        command = Command(self.begin(out))
        ended = command.end()
        if ended.code != 0:
            raise Bad(f"{command}: ended with {ended.code}\n{ended.said}")

    def trials(self, kills: int) -> dict[str, Callable[[], str]]:
        """All trials by what they are called, as many of each as go with so many kills."""
        part, step = max(kills // 10, 1), max(500 // kills, 1)
        return {
            f"{kills} kills at random": partial(self.kills, kills),
            "kills at calls": partial(self.kills_by_call, step),
            "full and read-only disks": partial(self.bad_disks, step),
            f"{2 * part} damaged files": partial(self.damages, 2 * part),
            f"{part} pairs of writers": partial(self.two_writers, part),
            f"{part} vanishing directories": partial(self.vanishing, part),
            "unwritable directories": self.unwritable,
        }


def main() -> int:
    """Try everything; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="of runs; the rest in proportion")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="WORD", help="trials with one of these words")
    options = parser.parse_args()
    works = {
        "runs": (go_on, same_run, options.kills),
        "reproductions": (reproduce, same_reproduction, max(options.kills // 5, 1)),
    }
    failures = 0
    with tempfile.TemporaryDirectory() as name:
        warm_up(reproduce(Path(name, "warm")))
        for work, (begin, same, kills) in works.items():
            folder = Path(name, work)
            folder.mkdir()
            own = Torture(folder, options.seed, begin, same)
            for trial, run in own.trials(kills).items():
                if options.only and not set(options.only) & {work, *trial.split()}:
                    continue
                start = time.monotonic()
                try:
                    outcome = run()
                except Bad as error:
                    failures += 1
                    outcome = f"BAD: {error}"
                    shutil.rmtree(own.out, ignore_errors=True)
                print(f"{work}, {trial}: {outcome} ({time.monotonic() - start:.0f} s)", flush=True)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
