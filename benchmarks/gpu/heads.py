"""Times of MTMLAN on a GPU: its recurrent heads, their recurrence alone, and a captured step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.phases import Phase
from benchmarks.gpu.timing import (
    DEVICE,
    Figures,
    Step,
    backends,
    distance,
    gemm_rate,
    products_in,
)
from fastmtl.backends import use_backend
from fastmtl.balancing import DynamicMultiTask
from fastmtl.models import MTMLAN, paired_parameters
from fastmtl.nn import FocalLoss
from fastmtl.ops.task_gru import task_gru_layer

TASKS, STEPS, FEATURES, HIDDEN = 7, 40, 2048, 128
BATCHES = [20, 256]  # the first is the paper's
POSITIVES, SAMPLES = [150, 338, 971, 273, 371, 311, 811], 1540
IN_A_REHEARSAL = {"TASKS": 2, "STEPS": 3, "FEATURES": 6, "HIDDEN": 5, "BATCHES": [4]}


def rehearse() -> None:
    """Take small sizes, for kernels that run on the host."""
    globals().update(IN_A_REHEARSAL)


@dataclass(frozen=True)
class Precision:
    """How matrix products are done, ours and cuDNN's alike, and how far the two may then differ."""

    name: str
    tf32: bool
    autocast: bool
    tolerance: float

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with products_in(self.tf32), torch.autocast(DEVICE, torch.bfloat16, self.autocast):
            yield


# cuDNN's GRU takes TF32 by default and torch's matrix products do not: each is measured with both
# in the same.
PRECISIONS = [
    Precision("float32", False, False, 1e-3),
    Precision("float32, products in TF32", True, False, 2e-2),
    Precision("bfloat16 by autocast", False, True, 1e-1),
]


def heads(figures: Figures, phase: Phase) -> None:
    """Forward, focal loss and backward of MTMLAN, beside one cuDNN GRU per task."""
    for batch, precision in phase.of([(b, p) for b in BATCHES for p in PRECISIONS]):
        figures.case(f"MTMLAN, B {batch}, {precision.name}", heads_at, batch, precision)


def heads_at(figures: Figures, batch: int, precision: Precision) -> None:
    """One batch size in one precision."""
    torch.manual_seed(0)
    model = MTMLAN(FEATURES, TASKS, HIDDEN).to(DEVICE)
    twin = model.to_torch().to(DEVICE)
    x = torch.randn(batch, STEPS, FEATURES, device=DEVICE)
    y = (torch.rand(batch, TASKS, device=DEVICE) > 0.6).float()
    size = f"B {batch}, L {STEPS}, D {FEATURES}, h {HIDDEN}, T {TASKS}"
    error = _difference(model, twin, x, y, precision)
    if not error <= precision.tolerance:
        # Both are timed all the same: which of them is wrong is for the parity tests to say.
        figures.warn(f"MTMLAN, {size}, {precision.name}: relative distance {error} from its twin")
    facts: dict[str, Any] = {"error": error}
    if not precision.autocast:
        rate = partial(gemm_rate, precision.tf32)
        facts["limit"] = lambda: _operations(batch * STEPS) / rate()
    what = "MTMLAN, forward, focal loss and backward"
    peers = {f"fastmtl {_serving()}": model, "torch.nn.GRU per task (cuDNN)": twin}
    for peer, network in peers.items():
        step = _training(network, x, y, precision)
        figures.add(what, peer, size, precision.name, step, **facts)


def _serving() -> str:
    """What serves the recurrence, of which Triton has no kernel."""
    return "native" if "native" in backends() else "reference"


def _training(network: nn.Module, x: Tensor, y: Tensor, precision: Precision) -> Step:
    loss = FocalLoss()

    def step() -> None:
        network.zero_grad()
        with products_in(precision.tf32):
            with precision():
                total = loss(network(x), y).sum()
            total.backward()

    return step


def _difference(
    model: MTMLAN, twin: nn.Module, x: Tensor, y: Tensor, precision: Precision
) -> float:
    """The largest relative distance of the logits' and the weights' gradients."""
    _training(model, x, y, precision)()
    _training(twin, x, y, precision)()
    pairs = paired_parameters(model, twin)
    ours = [pair.parameter.grad[pair.part] for pair in pairs if pair.parameter.grad is not None]
    theirs = [pair.twin.grad for pair in pairs if pair.twin.grad is not None]
    with torch.no_grad(), precision():
        return distance([model(x), *ours], [twin(x), *theirs])


def _operations(rows: int) -> float:
    """Floating-point operations of the matrix products of a training step; no input's gradient."""
    width = TASKS * 2 * 3 * HIDDEN
    first, second, recurrent = FEATURES * width, 2 * HIDDEN * width, 2 * HIDDEN * width
    return 2.0 * rows * (2 * first + 3 * second + 3 * recurrent)


def recurrence(figures: Figures, phase: Phase) -> None:
    """One layer, one direction, inputs of a single feature, beside FlashRNN's GRU kernels."""
    if phase.first is not False:
        figures.case("recurrence of a GRU layer", recurrence_at)


def recurrence_at(figures: Figures) -> None:
    """FlashRNN takes the products with the inputs as its argument; those of a single feature cost
    next to nothing. Its heads are our tasks, its steps all of one length."""
    batch = 32 if DEVICE == "cuda" else 3
    weights = [
        (2 * torch.rand(TASKS, 1, 3 * HIDDEN, *tail, device=DEVICE) - 1) * HIDDEN**-0.5
        for tail in ((1,), (HIDDEN,), (), ())
    ]
    x = torch.randn(batch * STEPS, 1, device=DEVICE)
    leaves = [leaf.requires_grad_() for leaf in (x, *weights)]
    size = f"B {batch}, L {STEPS}, h {HIDDEN}, T {TASKS}, 1 direction"
    what = "recurrence of a GRU layer, forward and backward"
    starts, lengths = torch.arange(batch) * STEPS, torch.full((batch,), STEPS)

    def ours(*leaves: Tensor) -> Tensor:
        return task_gru_layer(*leaves, starts, lengths).sum()

    @cache
    def wanted() -> list[Tensor]:
        with use_backend("reference"):
            return _gradients(ours, [leaf.detach().double().requires_grad_() for leaf in leaves])()

    facts = {"wanted": wanted, "tolerance": 1e-3}
    figures.add(what, f"fastmtl {_serving()}", size, x.dtype, _gradients(ours, leaves), **facts)
    if find_spec("flashrnn"):
        step = _flashrnn(leaves, batch)
        figures.add(what, "FlashRNN, CUDA", size, x.dtype, step, wanted=lambda: wanted()[:1])


def _gradients(run: Callable[..., Tensor], leaves: list[Tensor]) -> Step:
    def step() -> list[Tensor]:
        total = run(*leaves)
        return [total.detach(), *torch.autograd.grad(total, leaves)]

    return step


def _flashrnn(leaves: list[Tensor], batch: int) -> Step:
    """The sum of all states and its gradients by FlashRNN, whose gates are n, r, z where they are
    recurrent and r, z, n where they come from the input. Its fused kernels do not take GRUs."""
    from flashrnn import flashrnn

    x, weight_ih, weight_hh, bias_ih, bias_hh = (leaf.detach() for leaf in leaves)
    products = x.view(batch, STEPS, 1, 1, 1) * weight_ih.view(TASKS, 3, HIDDEN).transpose(0, 1)
    recurrent = weight_hh.view(TASKS, 3, HIDDEN, HIDDEN).transpose(0, 1)  # (3, T, h, h)
    r, z, n = recurrent.unbind()
    inputs, states = (b.view(TASKS, 3, HIDDEN).transpose(0, 1) for b in (bias_ih, bias_hh))
    bias = torch.stack([states[2], *(inputs + states)[:2], inputs[2]])  # (4, T, h)
    arguments = [
        argument.contiguous().requires_grad_()
        for argument in (products, torch.stack([n, r, z]), bias)
    ]

    def step() -> list[Tensor]:
        states, _ = flashrnn(*arguments, function="gru", backend="cuda", dtype="float32")
        total = states[0].sum()
        torch.autograd.grad(total, arguments)
        return [total.detach()]

    return step


class TrainingStep:
    """A whole step of MTMLAN: forward, focal loss, balanced backward, Adam."""

    def __init__(self, batch: int) -> None:
        torch.manual_seed(0)
        self.model = MTMLAN(FEATURES, TASKS, HIDDEN).to(DEVICE)
        self.loss = FocalLoss()
        self.balancer = DynamicMultiTask(self.model, POSITIVES[:TASKS], SAMPLES).to(DEVICE)
        fused = DEVICE == "cuda"
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=1e-4, fused=fused, capturable=fused
        )
        self.x = torch.randn(batch, STEPS, FEATURES, device=DEVICE)
        self.y = (torch.rand(batch, TASKS, device=DEVICE) > 0.6).float()

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        self.balancer.backward(self.loss(self.model(self.x), self.y))
        self.optimizer.step()

    def state(self) -> list[Tensor]:
        """Every tensor that a step changes; complete after the first one."""
        moments = [
            value
            for state in self.optimizer.state.values()
            for value in state.values()
            if isinstance(value, Tensor)
        ]
        return [*self.model.parameters(), *self.balancer.buffers(), *moments]

    @torch.no_grad()
    def restore(self, saved: list[Tensor]) -> None:
        """Copy a state back in place."""
        for tensor, value in zip(self.state(), saved, strict=True):
            tensor.copy_(value)


def graphs(figures: Figures, phase: Phase) -> None:
    """A whole training step, launched kernel by kernel and as one CUDA graph."""
    for batch in phase.of(BATCHES):
        figures.case(f"training step, B {batch}", graphs_at, batch)


def graphs_at(figures: Figures, batch: int) -> None:
    """The step at one batch size, the graph checked against the step before both are timed."""
    step = TrainingStep(batch)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    saved = [tensor.detach().clone() for tensor in step.state()]
    graph = torch.cuda.CUDAGraph()
    step.optimizer.zero_grad()
    with torch.cuda.graph(graph):
        step()
    after = _after(step, step, saved)
    size = f"B {batch}, L {STEPS}, D {FEATURES}, h {HIDDEN}, T {TASKS}"
    what = "MTMLAN training step with DynamicMultiTask and Adam"
    error = distance(_after(step, graph.replay, saved), after)
    peers: dict[str, Step] = {"eager": step}
    if error <= 1e-3:
        peers["CUDA graph"] = graph.replay
    else:
        figures.warn(f"captured training step, {size}: relative error {error}")
    for how, run in peers.items():
        peer = f"fastmtl {_serving()}, {how}"
        figures.add(what, peer, size, step.x.dtype, run, launches=launches_of(run))


def _after(step: TrainingStep, run: Step, saved: list[Tensor]) -> list[Tensor]:
    """The state that three runs lead to from a saved one."""
    step.restore(saved)
    for _ in range(3):
        run()
    return [tensor.detach().clone() for tensor in step.state()]


LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMemset", "cudaMemcpy")


def launches_of(run: Step) -> int:
    """How often the host tells the device to do something in a run."""
    run()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
        run()
        torch.cuda.synchronize()
    events: list[Any] = list(trace.events() or [])
    return sum(event.name.startswith(LAUNCHES) for event in events)
