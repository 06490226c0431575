"""What holds for every run of the suite, wherever its tests lie."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator

import pytest

from tests.figures import undrawn

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


@pytest.fixture(autouse=True)
def _figures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs draw their figures in tests marked `draws` alone."""
    if request.node.get_closest_marker("draws"):
        yield
    else:
        with undrawn():
            yield
