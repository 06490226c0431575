"""Times of the GPU kernels and their peers, each checked before it is timed.

In the order of what a run that ends early should have: fastmtl at three sizes of every op, its
peers there, all other sizes, and what torch.compile makes of the formulas, which takes long, last.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import cache
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import fastmtl
from benchmarks import formulas
from benchmarks.gpu import heads
from benchmarks.gpu.journal import Journal
from benchmarks.gpu.phases import COMPILED, PHASES, Phase
from benchmarks.gpu.timing import (
    DEVICE,
    SECONDS,
    Figures,
    Step,
    backends,
    copy_bandwidth,
    differentiated,
    distance,
    gemm_rate,
    on_backend,
    rehearsing,
)
from fastmtl.ops import fusion_edge_weights, graph_fusion, task_grad_gramian, task_grad_norms

# The first three of each are what a run that ends early should have.
FOCAL_SIZES = [(20, 7), (4096, 100), (1 << 23, 8), (256, 32), (1 << 17, 7), (1 << 20, 8)]
GRAD_SIZES = [(7, 256), (32, 4096), (100, 4096), (7, 4096), (32, 256), (100, 256)]
FUSION_SIZES = [
    *((64, 3, 64), (4096, 6, 256), (65536, 12, 1024)),
    *((batch, 3, 64) for batch in (4096, 65536)),
    *((batch, 6, 256) for batch in (64, 65536)),
    *((batch, 12, 1024) for batch in (64, 4096)),
]
IN_A_REHEARSAL = {
    "FOCAL_SIZES": [(20, 7), (256, 32)],
    "GRAD_SIZES": [(3, 16)],
    "FUSION_SIZES": [(4, 3, 20)],
}
DTYPES = (torch.float32, torch.bfloat16)


def focal(figures: Figures, phase: Phase) -> None:
    """The loss by task at all sizes, float32 and bfloat16."""
    for rows, tasks in phase.of(FOCAL_SIZES):
        for dtype in DTYPES:
            figures.case(f"focal loss ({rows}, {tasks}), {dtype}", focal_at, rows, tasks, dtype)


def focal_at(figures: Figures, rows: int, tasks: int, dtype: torch.dtype) -> None:
    """The loss for logits and targets of one size, by every peer."""
    z = (2 * torch.randn(rows, tasks, device=DEVICE)).to(dtype).requires_grad_()
    y = (torch.rand(rows, tasks, device=DEVICE) > 0.7).to(dtype)
    grad = torch.rand(tasks, device=DEVICE)
    single = dtype == torch.float32

    def plain(z: Tensor) -> Tensor:
        return formulas.focal_loss(z, y)

    def torchvision(z: Tensor) -> Tensor:
        return formulas.torchvision_focal_loss(z, y).float()

    def fused(z: Tensor) -> Tensor:
        return fastmtl.ops.focal_loss(z, y)

    @cache
    def wanted() -> list[Tensor]:
        return differentiated(plain, [z.detach().double().requires_grad_()], grad.double())()

    peers = {f"fastmtl {name}": fused for name in backends()}
    peers |= {"eager": plain, "torchvision's formula": torchvision}
    if single or rows in (20, 1 << 23):
        torch._dynamo.reset()
        peers[COMPILED] = torch.compile(plain, dynamic=False)
    for peer, run in peers.items():
        figures.add(
            "focal loss, forward and backward",
            peer,
            f"({rows}, {tasks})",
            dtype,
            differentiated(run, [z], grad),
            # Logits and targets read twice, the gradient written.
            limit=lambda: 5 * z.nbytes / copy_bandwidth(),
            wanted=wanted,
            tolerance=1e-4 if single else 3e-2,
        )


def launches() -> dict[str, int]:
    """Kernels that the device runs for a focal loss at (20, 7), forward and backward."""
    z, y = torch.randn(20, 7, device=DEVICE, requires_grad=True), torch.ones(20, 7, device=DEVICE)
    g, counts = torch.ones(7, device=DEVICE), {}
    for name in backends():
        with on_backend(name):
            torch.autograd.grad(fastmtl.ops.focal_loss(z, y), z, g)
            torch.cuda.synchronize()
            with profile(activities=[ProfilerActivity.CUDA]) as trace:
                torch.autograd.grad(fastmtl.ops.focal_loss(z, y), z, g)
                torch.cuda.synchronize()
        cuda = torch.autograd.DeviceType.CUDA
        counts[name] = sum(event.device_type == cuda for event in trace.events())
    return counts


def grads(figures: Figures, phase: Phase) -> None:
    """Norms and Gramian of a layer at all sizes."""
    for tasks, samples in phase.of(GRAD_SIZES):
        figures.case(f"gradients of {tasks} tasks, {samples} samples", grads_at, tasks, samples)


def grads_at(figures: Figures, tasks: int, samples: int) -> None:
    """Norms and Gramian beside the layer's backward pass and one autograd.grad per task."""
    features, outputs = (1024, 512) if DEVICE == "cuda" else (16, 8)
    weight = torch.randn(outputs, features, device=DEVICE, requires_grad=True)
    x = torch.randn(samples, features, device=DEVICE)
    d = torch.randn(tasks, samples, outputs, device=DEVICE)
    size = f"T {tasks}, N {samples}, I {features}, O {outputs}"
    leaf = x.clone().requires_grad_()

    @cache
    def exact() -> tuple[list[Tensor], list[Tensor]]:
        stacked = (d.double().mT @ x.double()).flatten(1)
        return [stacked.norm(dim=1)], [stacked @ stacked.T]

    def backward() -> Any:
        return torch.autograd.grad(leaf @ weight.T, [leaf, weight], d[0])

    def one_by_one() -> list[Tensor]:
        y = leaf @ weight.T
        found = [torch.autograd.grad(y, weight, part, retain_graph=True)[0] for part in d]
        return [torch.stack([grad.norm() for grad in found])]

    for name in backends():
        for index, op in enumerate((task_grad_norms, task_grad_gramian)):
            figures.add(
                op.__name__.replace("_", " "),
                f"fastmtl {name}",
                size,
                x.dtype,
                lambda op=op: [op(x, d)],
                wanted=lambda index=index: exact()[index],
            )
    figures.add("task grad norms", "autograd.grad per task", size, x.dtype, one_by_one)
    figures.add("task grad norms", "one forward and backward", size, x.dtype, backward)


def fusion(figures: Figures, phase: Phase) -> None:
    """Edge weights alone, and the fusion, at all sizes, float32 and bfloat16."""
    for sizes in phase.of(FUSION_SIZES):
        for dtype in DTYPES:
            for what in ("edge weights", "graph fusion"):
                figures.case(f"{what} {sizes}, {dtype}", fusion_at, what, sizes, dtype)


def fusion_at(figures: Figures, what: str, sizes: tuple[int, int, int], dtype: torch.dtype) -> None:
    """One of the two ops at one size, by every peer."""
    (batch, count, features), width = sizes, 64
    edges = list(combinations(range(count), 2))
    pairs = torch.tensor(edges, device=DEVICE)
    shapes = [(batch, count, features), (batch, count), (batch, len(edges), width)]
    shapes = shapes[: 3 if what == "graph fusion" else 2]
    leaves = [torch.randn(shape, device=DEVICE).to(dtype) for shape in shapes]
    # The float64 reference of a large batch does not fit; samples do not depend on each other.
    few = [leaf[:128] for leaf in leaves]

    def fused(v: Tensor, w: Tensor, *e: Tensor) -> Tensor:
        return graph_fusion(v, w, edges, *e)[0] if e else fusion_edge_weights(v, w, edges)

    def plain(v: Tensor, w: Tensor, *e: Tensor) -> Tensor:
        if e:
            return formulas.graph_fusion(v, w, pairs, *e)
        return formulas.fusion_edge_weights(v, w, pairs)

    def step_of(run: Callable[..., Tensor], leaves: list[Tensor]) -> Step:
        leaves = [leaf.detach().requires_grad_() for leaf in leaves]
        shape = (len(leaves[0]), width if len(leaves) == 3 else len(edges))
        grad = torch.ones(shape, device=DEVICE, dtype=leaves[0].dtype).cumsum(-1)
        return differentiated(run, leaves, grad)

    @cache
    def wanted() -> list[Tensor]:
        return step_of(plain, [leaf.double() for leaf in few])()

    def checked(peer: str, run: Callable[..., Tensor]) -> Step:
        """The step of all samples, which checks the first of them when it is first taken."""
        step, unchecked = step_of(run, leaves), [True]

        def first() -> Any:
            if unchecked:
                unchecked.clear()
                error = distance(step_of(run, few)(), wanted())
                if not error <= (1e-4 if dtype == torch.float32 else 3e-2):
                    raise ValueError(f"{peer}: relative error {error} of the first samples")
            return step()

        return first

    peers = {f"fastmtl {name}": fused for name in backends()}
    if dtype == torch.float32:
        peers["eager"] = plain
    for peer, run in peers.items():
        figures.add(
            f"{what}, forward and backward",
            peer,
            f"B {batch}, P {count}, D {features}" + (f", D' {width}" if len(leaves) == 3 else ""),
            dtype,
            checked(peer, run),
            # Every leaf read forward and backward, and a gradient written for each.
            limit=lambda: 3 * sum(leaf.nbytes for leaf in leaves) / copy_bandwidth(),
        )


def measures() -> list[Callable[[Figures, Phase], None]]:
    """What is measured, in order; in a rehearsal, all but what a device alone has."""
    found = [focal, fusion, heads.heads, grads, heads.recurrence]
    return [*found, heads.graphs] if DEVICE == "cuda" else found


def main() -> int:
    """Take all figures that the journal does not have."""
    warnings.filterwarnings("ignore", module="torch")
    if DEVICE != "cuda":
        globals().update(IN_A_REHEARSAL)
        heads.rehearse()
    journal = Journal.of_this_process()
    with rehearsing():
        limits(journal)
        for phase in PHASES:
            figures = Figures(journal, phase.takes)
            for measure in measures():
                measure(figures, phase)
    journal.write("end")
    return 0


def limits(journal: Journal) -> None:
    """What the device can do, and how many launches an op takes."""
    begun = journal.begun()
    if "limits of the device" not in begun:
        with journal.item("limits of the device", SECONDS):
            rates = {"copy_bytes_per_second": copy_bandwidth()}
            rates |= {"float32_flops": gemm_rate(), "tf32_flops": gemm_rate(tf32=True)}
            journal.write("facts", limits=rates)
    if DEVICE == "cuda" and "launches of a focal loss" not in begun:
        with journal.item("launches of a focal loss", SECONDS):
            journal.write("facts", launches_at_20_7=launches())


if __name__ == "__main__":
    sys.exit(main())
