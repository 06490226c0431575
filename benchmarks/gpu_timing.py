"""How the GPU figures are taken: timing between events, checks, and the device's own limits.

A figure is the median of repeated runs between two CUDA events. `limit` is the least time that the
device allows: the bytes that must move over its measured copy bandwidth, or the operations of the
matrix products over its measured rate.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

import fastmtl
from fastmtl.backends import native, triton

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
        """Time a step that returns tensors, against `wanted` if that is given."""
        wanted, tolerance = facts.pop("wanted", None), facts.pop("tolerance", 1e-4)
        ours = peer.startswith("fastmtl")
        if not ours and perf_counter() - self._start > BUDGET:
            return
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


def backends() -> list[str]:
    """fastmtl's own backends that serve this device."""
    return [
        name
        for name, module in (("native", native), ("triton", triton))
        if not module.why_not("focal_loss", "cuda")
    ]


def under(name: str, step: Step) -> Step:
    """A step on a backend; without the cost of choosing one where it is the chosen one anyway."""
    if name == backends()[0]:
        return step

    def run() -> Any:
        token = fastmtl.backends._forced.set(name)
        try:
            return step()
        finally:
            fastmtl.backends._forced.reset(token)

    return run


def differentiated(run: Callable[..., Tensor], leaves: list[Tensor], grad: Tensor) -> Step:
    """A step that computes `run` of the leaves and its gradients for `grad`."""

    def step() -> list[Tensor]:
        out = run(*leaves)
        return [out.detach(), *torch.autograd.grad(out, leaves, grad)]

    return step
