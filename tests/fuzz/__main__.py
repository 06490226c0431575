"""Random calls of every op for as long as is said: `python -m tests.fuzz --seconds 600`.

What fails is made as small as hypothesis can in a while and put into tests/fuzz/corpus, which the
test suite replays. A case that ends the process is found there by the next run. The same seed gives
the same cases. Ends with 1 where any failed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
import traceback
import warnings
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from fastmtl.backends import native, unavailable
from tests.conftest import ISAS
from tests.fuzz.cases import Case, cases
from tests.fuzz.ways import run

CORPUS = Path(__file__).resolve().parent / "corpus"
PER_ROUND = 500
SHRINKING = 20  # seconds


def main() -> int:
    """Try cases; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="after which no more are tried")
    parser.add_argument("--seed", type=int, help="of the first cases; by default the time")
    parser.add_argument(
        "--on", nargs="+", metavar="PLACE", help="reference, native-ISA, native-cuda or triton"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    number = time.time_ns() % 2**32 if options.seed is None else options.seed
    places = options.on or _places()
    print(f"seed {number}, on {', '.join(places)}", flush=True)
    search = Search(places, options.seconds)
    search.go(number)
    print(
        f"{search.tried} cases in {time.monotonic() - search.start:.0f} s, {search.failed} failed"
    )
    return int(search.failed > 0)


def _places() -> list[str]:
    """The reference and every instruction set here; Triton alone where its interpreter is on."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        return ["triton"]
    if unavailable("native"):
        return ["reference"]
    before = native.isa()
    found = [f"native-{isa}" for isa in ISAS if native.use_isa(isa)]
    native.use_isa(before)
    return ["reference", *found]


def keep(text: str) -> Path:
    """Put a case into the corpus."""
    path = CORPUS / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
    path.write_text(text)
    return path


class Search:
    """Rounds of cases until the time is over; after a failure hypothesis tries smaller ones."""

    def __init__(self, places: list[str], seconds: float) -> None:
        self.start = time.monotonic()
        self.end = self.start + seconds
        self.tried = self.failed = 0
        self._cases = cases(places)
        self._failing: Case | None = None
        self._until = self.end
        # One for every set of places, which run side by side.
        self._running = CORPUS / f".running-{places[0]}"

    def go(self, number: int) -> None:
        if self._running.exists():
            print(f"the last run did not come to its end: {keep(self._running.read_text())}")
        while time.monotonic() < self.end:
            self._round(number)
            number += 1
        self._running.unlink(missing_ok=True)

    def _round(self, number: int) -> None:
        self._failing, self._until = None, self.end
        chosen = settings(
            max_examples=PER_ROUND,
            derandomize=False,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        )
        try:
            chosen(seed(number)(given(self._cases)(self._attempt)))()
        except Exception as error:
            if self._failing is None:
                raise
            self.failed += 1
            print(f"{keep(self._failing.to_json())}: {self._failing}")
            print("".join(traceback.format_exception_only(error)).strip()[:2000], flush=True)

    def _attempt(self, case: Case) -> None:
        if time.monotonic() >= self._until:
            return
        self._running.write_text(case.to_json())
        self.tried += 1
        try:
            run(case)
        except Exception:
            if self._failing is None:
                self._until = time.monotonic() + SHRINKING
            self._failing = case
            raise


if __name__ == "__main__":
    sys.exit(main())
