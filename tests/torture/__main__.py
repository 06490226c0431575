"""Whether runs outlast what can befall them: `python -m tests.torture [--kills 1000]`.

Small runs and reproductions are killed at random moments, and at every call to the disk in turn,
and begun again until they finish; their disk fills up or becomes read-only at every call; their
files are cut and flipped; two writers share a directory; directories vanish. In the end each has
the result of a run left alone, bit for bit, and whatever was refused was so in one line. Ends with
1 if anything else came.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

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
from tests.torture.process import Bad, Command, Ended, warm_up
from tests.torture.runs import epochs, go_on, reproduce, same_reproduction, same_run, train

STATE = ["config.json", "model.safetensors", "checkpoint.safetensors"]
SIZES = [0, 1, 100, 1500, 4096, 20_000, 60_000, 100_000]


class Torture:
    """The trials of one seed, in a directory with a run and a reproduction left alone.

    Args:
        folder: an empty directory.
        seed: of everything random.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.rng = random.Random(seed)
        self.run, self.table = folder / "reference", folder / "reference table"
        warm_up(reproduce(folder / "warm"))
        self.calls = count_calls(lambda: warm_up(train(folder / "counted")))
        start = time.monotonic()
        finish(train(self.run))
        self.seconds = time.monotonic() - start
        start = time.monotonic()
        finish(reproduce(self.table))
        self.table_seconds = time.monotonic() - start

    def kills(self, count: int) -> str:
        """Kill runs at random moments, and go on with each until it finishes."""
        run, killed, finished = self.folder / "killed", 0, 0
        while killed < count:
            before = epochs(run)
            ended = self.killed(go_on(run), 1.1 * self.seconds)
            killed += ended.code is None
            if epochs(run) < before:
                raise Bad(f"{run}: had {before} epochs, has {epochs(run)}")
            if ended.code == 0:
                same_run(run, self.run)
                shutil.rmtree(run)
                finished += 1
        self.end(run)
        return f"{finished + 1} runs finished"

    def reproductions(self, count: int) -> str:
        """Kill reproductions at random moments, and go on with each until it finishes."""
        out, killed, finished = self.folder / "table", 0, 0
        while killed < count:
            ended = self.killed(reproduce(out), 1.1 * self.table_seconds)
            killed += ended.code is None
            if ended.code == 0 or killed == count:
                finish(reproduce(out))
                same_reproduction(out, self.table)
                shutil.rmtree(out)
                finished += 1
        return f"{finished} reproductions finished"

    def killed(self, arguments: list[str], most: float) -> Ended:
        """How a command ended that was killed after at most so many seconds, if it still ran."""
        command = Command(arguments)
        time.sleep(self.rng.random() * most)
        command.kill()
        ended = command.end()
        if ended.code not in (None, 0):
            raise Bad(f"{command}: ended with {ended.code}\n{ended.said}")
        return ended

    def kills_by_call(self) -> str:
        """Kill a run before each of its calls to the disk, and that which goes on with it too."""
        run = self.folder / "killed"
        for count in range(self.calls):
            for again in (count, count // 2):
                Command(go_on(run), partial(from_call, again, die)).end()
            self.end(run)
        return f"{self.calls} calls"

    def bad_disks(self) -> str:
        """A disk that is full, read-only, or fails once, from each call; one that fills up."""
        run = self.folder / "full"
        for act, once in ((fail(FULL), False), (fail(FULL), True), (fail(READ_ONLY), False)):
            for count in range(self.calls):
                Command(go_on(run), partial(from_call, count, act, once=once)).end()
                self.end(run)
        for size in SIZES:
            Command(go_on(run), partial(largest_file, size)).end()
            self.end(run)
        return f"{3 * self.calls + len(SIZES)} of them"

    def damages(self, count: int) -> str:
        """Damage a file of a finished run and go on: the same result, or a refusal."""
        refused, run = 0, self.folder / "damaged"
        for _ in range(count):
            shutil.copytree(self.run, run)
            damage_bytes(run / self.rng.choice(STATE), self.rng)
            if Command(go_on(run)).end().code == 0:
                same_run(run, self.run)
            else:
                refused += 1
            shutil.rmtree(run)
        return f"{refused} refused, the others mended"

    def two_writers(self, count: int) -> str:
        """Two processes in one directory, of which one at a time may write."""
        run = self.folder / "shared"
        for _ in range(count):
            first = Command(go_on(run))
            time.sleep(self.rng.random() * 0.3 * self.seconds)
            second = Command(go_on(run))
            if 0 not in [command.end().code for command in (first, second)]:
                raise Bad(f"{run}: two writers, and neither finished")
            self.end(run)
        return "one of each finished"

    def vanishing(self, count: int) -> str:
        """Remove the directory of a run while it runs, or put another in its place."""
        run = self.folder / "gone"
        for number in range(count):
            command = Command(go_on(run))
            time.sleep(self.rng.random() * self.seconds)
            shutil.rmtree(run, ignore_errors=True)
            if number % 2:
                run.mkdir(exist_ok=True)
            command.end()
            shutil.rmtree(run, ignore_errors=True)
        return "each said so, or had finished"

    def unwritable(self) -> str:
        """A directory without the right to write, which root has; places that are no directory."""
        path = self.folder / "unwritable"
        path.mkdir(mode=0o555)
        places = [Path("/proc/run"), Path("/dev/null/run"), path / "run"]
        for out in places[: 2 if os.geteuid() == 0 else 3]:
            if Command(train(out)).end().code == 0:
                raise Bad(f"{out}: written to")
        return "refused"

    def end(self, run: Path) -> None:
        """Go on with a run to its end, which must be that of the reference; remove it."""
        finish(go_on(run))
        same_run(run, self.run)
        shutil.rmtree(run)


def finish(arguments: list[str]) -> None:
    """A command that must do what it should."""
    ended = Command(arguments).end()
    if ended.code != 0:
        raise Bad(f"{' '.join(arguments)}: ended with {ended.code}\n{ended.said}")


def main() -> int:
    """Try everything; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="of runs; the rest in proportion")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="TRIAL", help="words of the trials to make")
    options = parser.parse_args()
    part = max(options.kills // 10, 1)
    failures = 0
    with tempfile.TemporaryDirectory() as name:
        own = Torture(Path(name), options.seed)
        trials: dict[str, Callable[[], str]] = {
            f"{options.kills} kills of runs": lambda: own.kills(options.kills),
            f"{part} kills of reproductions": lambda: own.reproductions(part),
            "kills at each call": own.kills_by_call,
            "full and read-only disks": own.bad_disks,
            f"{2 * part} damaged files": lambda: own.damages(2 * part),
            f"{part} pairs of writers": lambda: own.two_writers(part),
            f"{part} vanishing directories": lambda: own.vanishing(part),
            "unwritable directories": own.unwritable,
        }
        for trial, run in trials.items():
            if options.only and not set(options.only) & set(trial.split()):
                continue
            start = time.monotonic()
            try:
                outcome = run()
            except Bad as error:
                failures += 1
                outcome = f"BAD: {error}"
            print(f"{trial}: {outcome} ({time.monotonic() - start:.0f} s)", flush=True)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
