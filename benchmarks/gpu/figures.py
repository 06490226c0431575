"""Times of the GPU kernels and their peers, each checked before it is timed."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import fastmtl
from benchmarks import formulas
from benchmarks.gpu import heads
from benchmarks.gpu.timing import (
    Figures,
    Step,
    backends,
    copy_bandwidth,
    differentiated,
    distance,
    gemm_rate,
    on_backend,
)
from fastmtl.ops import fusion_edge_weights, graph_fusion, task_grad_gramian, task_grad_norms

FOCAL_SIZES = [(20, 7), (256, 32), (4096, 100), (1 << 17, 7), (1 << 20, 8), (1 << 23, 8)]
GRAD_SIZES = [(tasks, samples) for tasks in (7, 32, 100) for samples in (256, 4096)]
FUSION_SIZES = [
    (batch, count, features)
    for batch in (64, 4096, 65536)
    for count, features in ((3, 64), (6, 256), (12, 1024))
]


def focal(figures: Figures) -> None:
    """The loss by task at all sizes, float32 and bfloat16."""
    for rows, tasks in FOCAL_SIZES:
        for dtype in (torch.float32, torch.bfloat16):
            z = (2 * torch.randn(rows, tasks, device="cuda")).to(dtype).requires_grad_()
            y = (torch.rand(rows, tasks, device="cuda") > 0.7).to(dtype)
            focal_at(figures, z, y)
            torch._dynamo.reset()


def focal_at(figures: Figures, z: Tensor, y: Tensor) -> None:
    """The loss for logits and targets of one size, by every peer."""
    grad = torch.rand(z.shape[1], device="cuda")
    single = z.dtype == torch.float32

    def plain(z: Tensor) -> Tensor:
        return formulas.focal_loss(z, y)

    def torchvision(z: Tensor) -> Tensor:
        return formulas.torchvision_focal_loss(z, y).float()

    def ours(z: Tensor) -> Tensor:
        return fastmtl.ops.focal_loss(z, y)

    z64 = z.detach().double().requires_grad_()
    wanted = differentiated(plain, [z64], grad.double())()
    peers = {f"fastmtl {name}": differentiated(ours, [z], grad) for name in backends()}
    peers["eager"] = differentiated(plain, [z], grad)
    if single or len(z) in (FOCAL_SIZES[0][0], FOCAL_SIZES[-1][0]):
        peers["torch.compile"] = differentiated(torch.compile(plain, dynamic=False), [z], grad)
    peers["torchvision's formula"] = differentiated(torchvision, [z], grad)
    for peer, step in peers.items():
        figures.add(
            "focal loss, forward and backward",
            peer,
            f"({z.shape[0]}, {z.shape[1]})",
            z.dtype,
            step,
            # Logits and targets read twice, the gradient written.
            limit=5 * z.nbytes / copy_bandwidth(),
            wanted=wanted,
            tolerance=1e-4 if single else 3e-2,
        )


def launches() -> dict[str, int]:
    """Kernels that the device runs for a focal loss at (20, 7), forward and backward."""
    z, y = torch.randn(20, 7, device="cuda", requires_grad=True), torch.ones(20, 7, device="cuda")
    g, counts = torch.ones(7, device="cuda"), {}
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


def grads(figures: Figures) -> None:
    """Norms and Gramian of a layer, beside its backward pass and one autograd.grad per task."""
    features, outputs = 1024, 512
    weight = torch.randn(outputs, features, device="cuda", requires_grad=True)
    for tasks, samples in GRAD_SIZES:
        x = torch.randn(samples, features, device="cuda")
        d = torch.randn(tasks, samples, outputs, device="cuda")
        size = f"T {tasks}, N {samples}, I {features}, O {outputs}"
        stacked = (d.double().mT @ x.double()).flatten(1)
        gramian = [stacked @ stacked.T]
        norms = [stacked.norm(dim=1)]
        del stacked
        leaf = x.clone().requires_grad_()

        def backward(d: Tensor = d, leaf: Tensor = leaf) -> Any:
            return torch.autograd.grad(leaf @ weight.T, [leaf, weight], d[0])

        def one_by_one(d: Tensor = d, leaf: Tensor = leaf) -> list[Tensor]:
            y = leaf @ weight.T
            grads = [torch.autograd.grad(y, weight, part, retain_graph=True)[0] for part in d]
            return [torch.stack([grad.norm() for grad in grads])]

        for name in backends():
            for op, wanted in ((task_grad_norms, norms), (task_grad_gramian, gramian)):
                figures.add(
                    op.__name__.replace("_", " "),
                    f"fastmtl {name}",
                    size,
                    x.dtype,
                    lambda op=op, x=x, d=d: [op(x, d)],
                    wanted=wanted,
                )
        figures.add("task grad norms", "autograd.grad per task", size, x.dtype, one_by_one)
        figures.add("task grad norms", "one forward and backward", size, x.dtype, backward)


def fusion(figures: Figures) -> None:
    """Edge weights alone, and the fusion, at all sizes, float32 and bfloat16."""
    width = 64
    for batch, count, features in FUSION_SIZES:
        edges = list(combinations(range(count), 2))
        size = f"B {batch}, P {count}, D {features}, D' {width}"
        for dtype in (torch.float32, torch.bfloat16):
            shapes = (batch, count, features), (batch, count), (batch, len(edges), width)
            leaves = [torch.randn(shape, device="cuda").to(dtype) for shape in shapes]
            fusion_at(figures, "edge weights", size, edges, leaves[:2])
            fusion_at(figures, "graph fusion", size, edges, leaves)


def fusion_at(
    figures: Figures, what: str, size: str, edges: list[tuple[int, int]], leaves: list[Tensor]
) -> None:
    """One of the two ops at one size, by every peer; `leaves` as the op takes them."""
    pairs = torch.tensor(edges, device=leaves[0].device)
    dtype = leaves[0].dtype

    def ours(v: Tensor, w: Tensor, *e: Tensor) -> Tensor:
        return graph_fusion(v, w, edges, *e)[0] if e else fusion_edge_weights(v, w, edges)

    def plain(v: Tensor, w: Tensor, *e: Tensor) -> Tensor:
        if e:
            return formulas.graph_fusion(v, w, pairs, *e)
        return formulas.fusion_edge_weights(v, w, pairs)

    def step_of(run: Callable[..., Tensor], leaves: list[Tensor]) -> Step:
        leaves = [leaf.detach().requires_grad_() for leaf in leaves]
        return differentiated(run, leaves, torch.ones_like(run(*leaves)).cumsum(-1))

    # The float64 reference of a large batch does not fit; samples do not depend on each other.
    few = [leaf[:128] for leaf in leaves]
    wanted = step_of(plain, [leaf.double() for leaf in few])()
    facts = {
        # Every leaf read forward and backward, and a gradient written for each.
        "limit": 3 * sum(leaf.nbytes for leaf in leaves) / copy_bandwidth(),
    }
    for name in backends():
        peer = f"fastmtl {name}"
        with on_backend(peer):
            error = distance(step_of(ours, few)(), wanted)
        if not error <= (1e-4 if dtype == torch.float32 else 3e-2):
            figures.errors.append(f"{what}, {name}, {size}, {dtype}: relative error {error}")
            continue
        step = step_of(ours, leaves)
        figures.add(f"{what}, forward and backward", peer, size, dtype, step, error=error, **facts)
    if dtype == torch.float32:
        try:
            step = step_of(plain, leaves)
        except torch.cuda.OutOfMemoryError:
            return
        figures.add(f"{what}, forward and backward", "eager", size, dtype, step, **facts)


def main(path: Path) -> None:
    """Measure everything and write it to `path`."""
    warnings.filterwarnings("ignore", module="torch")
    properties = torch.cuda.get_device_properties(0)
    figures = Figures()
    record: dict[str, Any] = {
        "device": properties.name,
        "memory": properties.total_memory,
        "driver": _driver(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": sys.version.split()[0],
        "backends": backends(),
        "limits": {"copy_bytes_per_second": copy_bandwidth(), "float32_flops": gemm_rate()},
        "launches_at_20_7": launches(),
    }
    for measure in (heads.heads, heads.graphs, focal, grads, fusion, heads.recurrence):
        try:
            measure(figures)
        except Exception as error:  # one op's trouble must not lose the others' figures
            figures.errors.append(f"{measure.__name__}: {type(error).__name__}: {error}")
    record |= {"figures": figures.rows, "errors": figures.errors}
    path.write_text(json.dumps(record))


def _driver() -> str:
    version = Path("/proc/driver/nvidia/version")
    return version.read_text().splitlines()[0] if version.exists() else "unknown"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
