"""What the benchmarks share: the machine, its limits, and how a peer is timed."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from fastmtl.info import versions

GEMM_SIZE = 2048


def machine() -> str:
    """Processor, threads and versions, in a line."""
    facts = versions()
    return f"{_processor()}, {facts['CPU']}, torch {facts['PyTorch']}, Python {facts['Python']}"


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def time_peer(
    benchmark: Any,
    peer: str,
    step: Callable[[], Any],
    *,
    group: str,
    limit: float | None = None,
    limit_name: str = "copy bandwidth",
    beside: Callable[[], Any] | None = None,
) -> None:
    """Time `step` as `peer` in `group`; `limit` is the least time that the machine allows, s.

    `beside` runs in turn with `step`, so that what the machine does meanwhile slows both, and the
    ratio of their medians is kept.
    """
    benchmark.group = group
    benchmark.extra_info.update(peer=peer, limit=limit, limit_name=limit_name, machine=machine())
    step()
    # Rounds of at least 2 ms, so that the clock does not matter, for about a second.
    start = perf_counter()
    step()
    once = perf_counter() - start
    iterations = max(1, int(2e-3 / once))
    slow = once > 1
    rounds = 3 if slow else max(7, min(200, int(1.0 / (once * iterations))))
    benchmark.pedantic(step, iterations=iterations, rounds=rounds, warmup_rounds=0 if slow else 3)
    if beside is not None and benchmark.enabled:
        ours, others = in_turn(step, beside, 3 if slow else max(rounds, 15))
        benchmark.extra_info["beside"] = ours / others


def in_turn(step: Callable[[], Any], beside: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """The median seconds of both, each run so often."""
    times = [(_seconds(step), _seconds(beside)) for _ in range(rounds)]
    ours, others = zip(*times, strict=True)
    return median(ours), median(others)


def peak_memory(step: Callable[[], Any]) -> int | None:
    """Bytes by which the process grows during a step at most; None where Linux does not tell."""
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if not reset.exists():
        return None
    ctypes.CDLL(None).malloc_trim(0)  # what was freed does not count as resident
    reset.write_text("5")  # the peak starts anew from what is resident now
    before = _resident(status, "VmHWM")
    step()
    return _resident(status, "VmHWM") - before


def _resident(status: Path, name: str) -> int:
    (line,) = [line for line in status.read_text().splitlines() if line.startswith(name)]
    return 1024 * int(line.split()[1])


def _seconds(step: Callable[[], Any]) -> float:
    start = perf_counter()
    step()
    return perf_counter() - start


@lru_cache
def copy_bandwidth() -> float:
    """Bytes a second that a copy of 256 MB reads and writes, the best of several."""
    source = torch.rand(1 << 25)
    target = torch.empty_like(source)
    return 2 * source.nbytes / best_seconds(lambda: target.copy_(source))


@lru_cache
def gemm_rate(dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations a second of a large matrix product, the best of several."""
    a = torch.rand(GEMM_SIZE, GEMM_SIZE, dtype=dtype)
    out = torch.empty_like(a)
    return 2 * GEMM_SIZE**3 / best_seconds(lambda: torch.mm(a, a, out=out))


def best_seconds(step: Callable[[], Any]) -> float:
    """The shortest of several runs."""
    return min(_seconds(step) for _ in range(8))


def forward_backward(
    function: Callable[..., Tensor], leaves: list[Tensor]
) -> Callable[[], list[Tensor]]:
    """A step that computes the function's sum and the gradients of `leaves`, which it returns."""

    def step() -> list[Tensor]:
        for leaf in leaves:
            leaf.grad = None
        function(*leaves).sum().backward()
        return [leaf.grad for leaf in leaves if leaf.grad is not None]

    return step
