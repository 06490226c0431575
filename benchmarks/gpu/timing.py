"""How the GPU figures are taken: timing between events, checks, and the device's own limits.

A figure is the median of repeated runs between two CUDA events. `limit` is the least time that the
device allows: the bytes that must move over its measured copy bandwidth, or the operations of the
matrix products over its measured rate.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

import fastmtl
from fastmtl.ops import focal_loss

Step = Callable[[], Any]
BUDGET = 300  # seconds, after which only fastmtl itself is measured


class Figures:
    """Collects figures; a failed check or a lack of memory is recorded in place of a time."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self._start = perf_counter()

    def add(
        self, what: str, peer: str, size: str, dtype: torch.dtype, step: Step, **facts: Any
    ) -> None:
        """Time a step that returns tensors, against `wanted` if that is given.

        It runs on the backend that the peer's name tells, "fastmtl native" for instance.
        """
        ours = peer.startswith("fastmtl")
        if not ours and perf_counter() - self._start > BUDGET:
            return
        with on_backend(peer):
            self._add(what, peer, size, dtype, step, **facts)

    def _add(
        self, what: str, peer: str, size: str, dtype: torch.dtype, step: Step, **facts: Any
    ) -> None:
        wanted, tolerance = facts.pop("wanted", None), facts.pop("tolerance", 1e-4)
        row = {"what": what, "peer": peer, "size": size, "dtype": str(dtype)[6:], **facts}
        try:
            if wanted is not None:
                error = distance(step(), wanted)
                row["error"] = error
                if not error <= tolerance:
                    self.errors.append(f"{what}, {peer}, {size}: relative error {error}")
                    return
            row["seconds"] = time_of(step)
        except torch.cuda.OutOfMemoryError:
            row["seconds"] = None
        if "limit" in row and row["seconds"]:
            row["share_of_limit"] = row["limit"] / row["seconds"]
        self.rows.append(row)
        print(what, peer, size, row["dtype"], row["seconds"], row.get("share_of_limit"), flush=True)
        torch.cuda.empty_cache()


def distance(actual: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest of the results' relative distances, infinite for NaN."""
    worst = 0.0
    for one, other in zip(actual, wanted, strict=True):
        norm = float(other.double().norm())
        error = float((one.double() - other.double()).norm()) / (norm or 1.0)
        worst = max(worst, error if error == error else float("inf"))
    return worst


def time_of(step: Step) -> float:
    """Median seconds of a step; short ones are repeated between the events."""
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    start = perf_counter()
    step()
    torch.cuda.synchronize()
    once = max(perf_counter() - start, 1e-6)
    inner = max(1, min(200, int(2e-3 / once)))
    times = []
    for _ in range(max(7, min(50, int(0.3 / (inner * once))))):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(inner):
            step()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3 / inner)
    return median(times)


@cache
def copy_bandwidth() -> float:
    """Bytes a second that a copy of 1 GiB reads and writes."""
    source = torch.rand(1 << 28, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / time_of(lambda: target.copy_(source))


@cache
def gemm_rate() -> float:
    """Floating-point operations a second of a float32 matrix product."""
    a = torch.rand(8192, 8192, device="cuda")
    out = torch.empty_like(a)
    return 2 * 8192**3 / time_of(lambda: torch.mm(a, a, out=out))


@cache
def backends() -> list[str]:
    """fastmtl's own backends that serve this device, the one it takes by itself first."""
    return [name for name in ("native", "triton") if _serves(name)]


def _serves(name: str) -> bool:
    try:
        with fastmtl.use_backend(name):
            focal_loss(torch.zeros(1, 1, device="cuda"), torch.zeros(1, 1, device="cuda"))
    except RuntimeError as error:
        if "backend" not in str(error):
            raise
        return False
    return True


def on_backend(peer: str) -> AbstractContextManager[None]:
    """The block on the backend of a peer; without the cost of one where it is taken anyway."""
    name = peer.removeprefix("fastmtl ").split(",")[0]
    forced = name in backends()[1:]
    return fastmtl.use_backend(name) if forced else nullcontext()


def differentiated(run: Callable[..., Tensor], leaves: list[Tensor], grad: Tensor) -> Step:
    """A step that computes `run` of the leaves and its gradients for `grad`."""

    def step() -> list[Tensor]:
        out = run(*leaves)
        return [out.detach(), *torch.autograd.grad(out, leaves, grad)]

    return step
