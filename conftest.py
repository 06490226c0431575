"""What holds for every run of the suite, wherever its tests lie."""

from __future__ import annotations

import atexit
import gc

# Has to be loaded before anything else, by `make sanitize`.
collect_ignore = ["tests/sanitized.py"]


def pytest_sessionfinish() -> None:
    """Collect the garbage once, and spare pytest's own collections all that is left.

    They go over every object of torch and its compiler, and a worker of pytest-xdist that is still
    at it five seconds after its last report gets a SIGINT: the KeyboardInterrupt then falls into a
    callback of the collector (hypothesis has one), which prints and drops it.
    """
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)
