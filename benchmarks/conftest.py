"""Prints, after the benchmarks, every group as a table: medians, ratios, shares of limits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.support import machine

OURS = "fastmtl"


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    groups: dict[str, list[Any]] = {}
    for bench in session.benchmarks if session else []:
        if bench and "peer" in bench.extra_info:
            groups.setdefault(bench.group, []).append(bench)
    if not groups:
        return
    terminalreporter.section("fastmtl beside its peers, medians")
    terminalreporter.write_line(machine())
    for group, benches in groups.items():
        _write_group(terminalreporter, group, benches)


def _write_group(terminalreporter: Any, group: str, benches: list[Any]) -> None:
    terminalreporter.write_line(f"\n{group}")
    ours = next((b.stats.median for b in benches if b.extra_info["peer"] == OURS), None)
    for bench in benches:
        median, limit = bench.stats.median, bench.extra_info.get("limit")
        ratio = f"{median / ours:8.2f} x" if ours else ""
        beside = bench.extra_info.get("beside")
        ratio += f"{beside:8.2f} x plain" if beside else ""
        memory = bench.extra_info.get("peak_memory")
        ratio += f"{memory / 1e6:8.0f} MB" if memory else ""
        share = f"   {limit / median:4.0%} of {bench.extra_info['limit_name']}" if limit else ""
        terminalreporter.write_line(
            f"  {bench.extra_info['peer']:<28}{1e3 * median:10.3f} ms{ratio}{share}"
        )


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
