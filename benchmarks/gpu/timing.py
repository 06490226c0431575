"""How the GPU figures are taken: timing between events, checks, and the device's own limits.

A figure is the median of repeated runs between two CUDA events. `limit` is the least time that the
device allows: the bytes that must move over its measured copy bandwidth, or the operations of the
matrix products over its measured rate.

In a rehearsal, which REHEARSAL in the environment asks for, the CUDA kernels run on the host and
the times are worth nothing: it shows that a run comes to its end, and what it leaves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

import fastmtl
from benchmarks.gpu.journal import Journal, leave_if_poisoned
from fastmtl.ops import focal_loss

Step = Callable[[], Any]
REHEARSAL = "FASTMTL_GPU_REHEARSAL"
DEVICE = "cpu" if os.environ.get(REHEARSAL) else "cuda"
SECONDS = 60.0  # that one figure may take, the compilation of its kernels included


@contextmanager
def rehearsing() -> Iterator[None]:
    """In a rehearsal, the CUDA kernels on the host."""
    if DEVICE == "cuda":
        yield
    else:
        from tests.cuda import host

        with host.serving(), fastmtl.use_backend("native"):
            yield


class Figures:
    """Takes the figures that `takes` names by their peer, and writes each to the journal.

    What cannot be had, for a failed check, a lack of memory or any other error, costs the figure
    alone. What the journal has is not taken again.
    """

    def __init__(self, journal: Journal, takes: Callable[[str], bool] = lambda peer: True) -> None:
        self.journal, self.takes = journal, takes
        self.known = journal.begun()
        self._fatal = journal.fatal()
        self._preparing = ""

    def case(self, name: str, measure: Callable[..., None], *arguments: Any) -> None:
        """Let a function prepare and take the figures of one case, or fail at it alone."""
        if name in self._fatal:
            return
        self._preparing = name
        self.journal.begin(name, SECONDS)
        try:
            measure(self, *arguments)
        except Exception as error:
            self._fail(name, error)
        else:
            self._prepared()

    def add(
        self, what: str, peer: str, size: str, dtype: torch.dtype | str, step: Step, **facts: Any
    ) -> None:
        """Time a step that returns tensors, against what `wanted` returns if that is given.

        It runs on the backend that the peer's name tells, "fastmtl native" for instance.
        """
        if not self.takes(peer):
            return
        kind = str(dtype).removeprefix("torch.")
        row = {"what": what, "peer": peer, "size": size, "dtype": kind}
        name = ", ".join(row.values())
        if name in self.known:
            return
        self.known.add(name)
        self._prepared()
        self.journal.begin(name, SECONDS)
        try:
            with on_backend(peer):
                row |= _taken(step, **facts)
        except torch.cuda.OutOfMemoryError:
            self.journal.end(name, "passed", figure=row | {"seconds": None})
        except Exception as error:
            self._fail(name, error)
        else:
            self.journal.end(name, "passed", figure=row)
            print(name, row["seconds"], row.get("share_of_limit"), flush=True)
        if DEVICE == "cuda":
            torch.cuda.empty_cache()

    def warn(self, message: str) -> None:
        """Record what is wrong with figures that are taken all the same."""
        self.journal.write("item", name=message, outcome="failed", message="see its figures")

    def _prepared(self) -> None:
        if self._preparing:
            self.journal.end(self._preparing, "passed")
        self._preparing = ""

    def _fail(self, name: str, error: Exception) -> None:
        self._preparing = ""
        self.journal.end(name, "failed", message=f"{type(error).__name__}: {error}"[:2000])
        print(name, error, flush=True)
        leave_if_poisoned()


def _taken(
    step: Step,
    wanted: Callable[[], list[Tensor]] | None = None,
    tolerance: float = 1e-4,
    limit: Callable[[], float] | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """What is recorded of a figure; raises where the result is wrong."""
    if wanted is not None:
        error = distance(step(), wanted())
        facts["error"] = error
        if not error <= tolerance:
            raise ValueError(f"relative error {error}, of which {tolerance} is allowed")
    facts["seconds"] = time_of(step)
    if limit is not None:
        facts["limit"] = limit()
        facts["share_of_limit"] = facts["limit"] / facts["seconds"]
    return facts


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
    if DEVICE != "cuda":
        start = perf_counter()
        step()
        return perf_counter() - start
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
    source = torch.rand(1 << 28 if DEVICE == "cuda" else 1 << 16, device=DEVICE)
    target = torch.empty_like(source)
    return 2 * source.nbytes / time_of(lambda: target.copy_(source))


@cache
def gemm_rate(tf32: bool = False) -> float:
    """Floating-point operations a second of a matrix product of float32 numbers."""
    size = 8192 if DEVICE == "cuda" else 64
    a = torch.rand(size, size, device=DEVICE)
    out = torch.empty_like(a)
    with products_in(tf32):
        return 2 * size**3 / time_of(lambda: torch.mm(a, a, out=out))


@contextmanager
def products_in(tf32: bool) -> Iterator[None]:
    """float32 matrix products, cuDNN's among them, in TF32 or in IEEE float32."""
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = tf32
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


@cache
def backends() -> list[str]:
    """fastmtl's own backends that serve this device, the one it takes by itself first."""
    return [name for name in ("native", "triton") if _serves(name)]


def _serves(name: str) -> bool:
    try:
        with fastmtl.use_backend(name):
            focal_loss(torch.zeros(1, 1, device=DEVICE), torch.zeros(1, 1, device=DEVICE))
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
