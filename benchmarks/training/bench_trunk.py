"""The Gramian of the tasks' gradients of all shared parameters, beside a plain step and TorchJD.

Trunks of three kinds, then one linear map to T logits and binary cross-entropy. A plain step is
forward and backward pass of the mean losses' sum. fastmtl sees the tasks at a TaskFork behind the
trunk; TorchJD's autogram engine takes its way through the one matrix of heads, the cheapest that
there is for it. Both give the Gramian and then the gradients of the sum.

For each task either sends gradients down through the trunk once, half the operations of a plain
backward pass. TorchJD then multiplies out the gradients of the weights, the other half, and their
inner products. fastmtl needs N^2 O for each task and layer instead where a batch has fewer rows N
than a layer has features, and as many operations as TorchJD elsewhere: in time it can be at most
twice as fast but for overheads, in memory more. Of the ResNet and the transformer the outputs are
so large that the tasks go one by one, and one autograd.grad per task is the peer to be level with.

The limit counts, at the rate of a large matrix product, the operations of the plain step and those
of the tasks' gradients down through the trunk, without any inner products.

    python -m pytest -q benchmarks/training/bench_trunk.py --benchmark-only \\
        --benchmark-columns=median,iqr,rounds

takes less than three minutes; with --benchmark-disable it checks the Gramians alone.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.support import gemm_rate, peak_memory, time_peer
from fastmtl.balancing import GramianBalancer
from fastmtl.nn import TaskFork

TASKS = [7, 32, 100]


class Mean(nn.Module):
    """Over some dimensions."""

    def __init__(self, *dims: int) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.dims)


class Residual(nn.Module):
    """Two convolutions 3 x 3 with batch normalisation, beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = (
            nn.Identity() if stride == 1 else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layers(x) + self.shortcut(x))


def mlp() -> tuple[nn.Module, Tensor]:
    """3 x 512, then 256, of 128 samples."""
    layers = [nn.Sequential(nn.Linear(512, size), nn.ReLU()) for size in (512, 512, 512, 256)]
    return nn.Sequential(*layers), torch.randn(128, 512)


def resnet() -> tuple[nn.Module, Tensor]:
    """Three blocks of 16, 32 and 64 channels, of 16 images 24 x 24."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        Residual(16, 16, 1),
        Residual(16, 32, 2),
        Residual(32, 64, 2),
        Mean(2, 3),
    ), torch.randn(16, 3, 24, 24)


def transformer() -> tuple[nn.Module, Tensor]:
    """One encoder layer of width 128, of 16 sequences of 24."""
    layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.0, batch_first=True)
    return nn.Sequential(layer, Mean(1)), torch.randn(16, 24, 128)


TRUNKS = {"mlp": mlp, "resnet": resnet, "transformer": transformer}


class Step:
    """Forward and backward pass of the plain sum."""

    def __init__(self, kind: str, tasks: int) -> None:
        torch.manual_seed(0)
        self.trunk, self.x = TRUNKS[kind]()
        self.tasks = tasks
        self.heads = nn.Linear(self.trunk(self.x).shape[1], tasks)
        self.targets = (torch.rand(len(self.x), tasks) > 0.5).float()

    def __call__(self) -> Tensor | None:
        self.trunk.zero_grad()
        self.heads.zero_grad()
        return self.backward()

    def backward(self) -> Tensor | None:
        """Gradients into `.grad`; returns the Gramian (T, T) of the trunk's parameters."""
        self.losses().sum().backward()
        return None

    def losses(self) -> Tensor:
        """(T,)."""
        return self.of_logits(self.heads(self.trunk(self.x)))

    def of_logits(self, logits: Tensor) -> Tensor:
        losses = F.binary_cross_entropy_with_logits(logits, self.targets, reduction="none")
        return losses.mean(0)


class Scope(Step):
    def __init__(self, kind: str, tasks: int) -> None:
        super().__init__(kind, tasks)
        self.fork = TaskFork(tasks)
        self.balancer = GramianBalancer(self.fork, self.weigh, scope="trunk")
        self.seen: Tensor | None = None

    def weigh(self, gramian: Tensor) -> Tensor:
        self.seen = gramian
        return gramian.new_ones(self.tasks)

    def losses(self) -> Tensor:
        logits = torch.einsum("tno,to->nt", self.fork(self.trunk(self.x)), self.heads.weight)
        return self.of_logits(logits + self.heads.bias)

    def backward(self) -> Tensor | None:
        self.balancer.backward(self.losses())
        return self.seen


class Autogram(Step):
    def __init__(self, kind: str, tasks: int) -> None:
        super().__init__(kind, tasks)
        engine = pytest.importorskip("torchjd.autogram").Engine
        self.engine = engine(self.trunk, batch_dim=None)

    def backward(self) -> Tensor | None:
        losses = self.losses()
        gramian: Tensor = self.engine.compute_gramian(losses)
        losses.backward(torch.ones(self.tasks))
        return gramian


class OneByOne(Step):
    """One autograd.grad per task, whose gradients are all kept."""

    def backward(self) -> Tensor | None:
        losses = self.losses()
        rows = []
        for loss in losses:
            grads = torch.autograd.grad(loss, list(self.trunk.parameters()), retain_graph=True)
            rows.append(torch.cat([grad.flatten() for grad in grads]))
        losses.sum().backward()
        stacked = torch.stack(rows)
        return stacked @ stacked.T


PEERS: dict[str, type[Step]] = {
    "plain step": Step,
    "fastmtl": Scope,
    "TorchJD autogram": Autogram,
    "one autograd.grad per task": OneByOne,
}


@lru_cache
def expected(kind: str, tasks: int) -> Tensor:
    """The Gramian (T, T), task by task."""
    gramian = OneByOne(kind, tasks)()
    assert gramian is not None
    return gramian


@lru_cache
def flops(kind: str, tasks: int) -> tuple[int, int]:
    """Of the matrix products and convolutions of a plain step, and of the tasks' gradients down
    through the trunk: as many as going up through it, for each."""
    step = Step(kind, tasks)
    with FlopCounterMode(display=False) as plain:
        step()
    with FlopCounterMode(display=False) as forward:
        step.trunk(step.x)
    return plain.get_total_flops(), tasks * forward.get_total_flops()


@pytest.mark.parametrize("tasks", TASKS)
@pytest.mark.parametrize("kind", TRUNKS)
@pytest.mark.parametrize("peer", PEERS)
def test_trunk(benchmark: Any, peer: str, kind: str, tasks: int) -> None:
    step, plain = PEERS[peer](kind, tasks), Step(kind, tasks)
    seen = step()
    if seen is not None:
        wanted = expected(kind, tasks)
        assert (seen - wanted).abs().max() < 1e-4 * wanted.abs().max()
    own, down = flops(kind, tasks)
    time_peer(
        benchmark,
        peer,
        step,
        group=f"Gramian of all shared parameters, {kind}, T {tasks}",
        limit=(own if peer == "plain step" else own + down) / gemm_rate(),
        limit_name="matrix-product rate",
        beside=None if peer == "plain step" else plain,
    )
    benchmark.extra_info["peak_memory"] = peak_memory(step)
