"""A plugin of pytest that writes the outcome of every test to the run's journal as it comes.

Tests that the journal has already are left out, so that a process can be started again where
another one died. `pytest -p benchmarks.gpu.outcomes`; without a journal it does nothing of use.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from benchmarks.gpu.journal import Journal, leave_if_poisoned

SECONDS = float(os.environ.get("FASTMTL_GPU_TEST_SECONDS", "60"))  # that one test may take
_journal = Journal.of_this_process()
_reports: dict[str, list[pytest.TestReport]] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what was begun."""
    begun = _journal.begun()
    done = [item for item in items if item.nodeid in begun]
    if done:
        config.hook.pytest_deselected(items=done)
        items[:] = [item for item in items if item.nodeid not in begun]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Announce a test, and record what became of it."""
    _journal.begin(item.nodeid, SECONDS)
    result = yield
    reports = _reports.pop(item.nodeid, [])
    outcome, message = _outcome(reports)
    seconds = round(sum(report.duration for report in reports), 3)
    _journal.end(item.nodeid, outcome, seconds=seconds, **({"message": message} if message else {}))
    if outcome == "failed":
        leave_if_poisoned()
    return result


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the reports of a test's phases until it is over."""
    _reports.setdefault(report.nodeid, []).append(report)


def pytest_sessionfinish(exitstatus: int) -> None:
    """Say that no test is left: 0, 1 and 5 are sessions that ran to their end."""
    if int(exitstatus) in (0, 1, 5):
        _journal.write("end")


def _outcome(reports: list[pytest.TestReport]) -> tuple[str, str]:
    for report in reports:
        if report.failed:
            return "failed", report.longreprtext[-2000:]
    for report in reports:
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            return "skipped", str(reason)
    return "passed", ""
