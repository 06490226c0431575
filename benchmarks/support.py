"""What the benchmarks share: the machine, its limits, and how a peer is timed."""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from fastmtl.backends import native


def machine() -> str:
    """Processor, threads and versions, in a line."""
    return (
        f"{_processor()}, {torch.get_num_threads()} threads, {native.isa() or 'no'} kernels, "
        f"torch {torch.__version__}, Python {platform.python_version()}"
    )


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
) -> None:
    """Time `step` as `peer` in `group`; `limit` is the least time that the machine allows, s."""
    benchmark.group = group
    benchmark.extra_info.update(peer=peer, limit=limit, limit_name=limit_name, machine=machine())
    step()
    # Rounds of at least 2 ms, so that the clock does not matter, for about a second.
    start = perf_counter()
    step()
    once = perf_counter() - start
    iterations = max(1, int(2e-3 / once))
    rounds = max(7, min(200, int(1.0 / (once * iterations))))
    benchmark.pedantic(step, iterations=iterations, rounds=rounds, warmup_rounds=3)


@lru_cache
def copy_bandwidth() -> float:
    """Bytes a second that a copy of 256 MB reads and writes, the best of several."""
    source = torch.rand(1 << 25)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best(lambda: target.copy_(source))


@lru_cache
def gemm_rate(dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations a second of a 2048 x 2048 matrix product, the best of several."""
    a = torch.rand(2048, 2048, dtype=dtype)
    out = torch.empty_like(a)
    return 2 * 2048**3 / _best(lambda: torch.mm(a, a, out=out))


def _best(step: Callable[[], Any]) -> float:
    times = []
    for _ in range(8):
        start = perf_counter()
        step()
        times.append(perf_counter() - start)
    return min(times)


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
