"""Times of MTMLAN on a GPU: its recurrent heads, their recurrence alone, and a captured step."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.timing import Figures, Step, backends, distance, gemm_rate
from fastmtl.balancing import DynamicMultiTask
from fastmtl.models import MTMLAN, paired_parameters
from fastmtl.nn import FocalLoss
from fastmtl.ops.task_gru import task_gru_layer

DEVICE = "cuda"
TASKS, STEPS, FEATURES, HIDDEN = 7, 40, 2048, 128
BATCHES = [20, 256]  # the first is the paper's
POSITIVES, SAMPLES = [150, 338, 971, 273, 371, 311, 811], 1540


def heads(figures: Figures) -> None:
    """Forward, focal loss and backward of MTMLAN, beside one cuDNN GRU per task."""
    for batch in BATCHES:
        torch.manual_seed(0)
        model = MTMLAN(FEATURES, TASKS, HIDDEN).to(DEVICE)
        twin = model.to_torch().to(DEVICE)
        x = torch.randn(batch, STEPS, FEATURES, device=DEVICE)
        y = (torch.rand(batch, TASKS, device=DEVICE) > 0.6).float()
        size = f"B {batch}, L {STEPS}, D {FEATURES}, h {HIDDEN}, T {TASKS}"
        error = _difference(model, twin, x, y)
        if not error <= 1e-3:
            figures.errors.append(f"MTMLAN, {size}: relative error {error}")
            continue
        facts = {"limit": _operations(batch * STEPS) / gemm_rate(), "error": error}
        what = "MTMLAN, forward, focal loss and backward"
        peers = {f"fastmtl {_serving()}": model, "torch.nn.GRU per task (cuDNN)": twin}
        for peer, network in peers.items():
            figures.add(what, peer, size, x.dtype, _training(network, x, y), **facts)


def _serving() -> str:
    """Triton has no kernel of the recurrence."""
    return "native" if "native" in backends() else "reference"


def _training(network: nn.Module, x: Tensor, y: Tensor) -> Step:
    loss = FocalLoss()

    def step() -> None:
        network.zero_grad()
        loss(network(x), y).sum().backward()

    return step


def _difference(model: MTMLAN, twin: nn.Module, x: Tensor, y: Tensor) -> float:
    """The largest relative distance of the logits' and the weights' gradients."""
    _training(model, x, y)()
    _training(twin, x, y)()
    pairs = paired_parameters(model, twin)
    ours = [pair.parameter.grad[pair.part] for pair in pairs if pair.parameter.grad is not None]
    theirs = [pair.twin.grad for pair in pairs if pair.twin.grad is not None]
    with torch.no_grad():
        return distance([model(x), *ours], [twin(x), *theirs])


def _operations(rows: int) -> float:
    """Floating-point operations of the matrix products of a training step; no input's gradient."""
    width = TASKS * 2 * 3 * HIDDEN
    first, second, recurrent = FEATURES * width, 2 * HIDDEN * width, 2 * HIDDEN * width
    return 2.0 * rows * (2 * first + 3 * second + 3 * recurrent)


def recurrence(figures: Figures) -> None:
    """One layer, one direction, inputs of a single feature, beside FlashRNN's GRU kernels.

    FlashRNN takes the products with the inputs as its argument; those of a single feature cost
    next to nothing. Its heads are our tasks, its steps all of one length.
    """
    batch = 32
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

    wanted = _gradients(ours, [leaf.detach().double().requires_grad_() for leaf in leaves])()
    peer, step = f"fastmtl {_serving()}", _gradients(ours, leaves)
    figures.add(what, peer, size, x.dtype, step, wanted=wanted, tolerance=1e-3)
    if find_spec("flashrnn"):
        step = _flashrnn(leaves, batch)
        figures.add(what, "FlashRNN, CUDA", size, x.dtype, step, wanted=wanted[:1])


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


def graphs(figures: Figures) -> None:
    """A whole training step, launched kernel by kernel and as one CUDA graph."""
    for batch in BATCHES:
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
        wanted = _after(step, step, saved)
        size = f"B {batch}, L {STEPS}, D {FEATURES}, h {HIDDEN}, T {TASKS}"
        error = distance(_after(step, graph.replay, saved), wanted)
        if not error <= 1e-3:
            figures.errors.append(f"captured training step, {size}: relative error {error}")
            continue
        what = "MTMLAN training step with DynamicMultiTask and Adam"
        for how, run in (("eager", step), ("CUDA graph", graph.replay)):
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
