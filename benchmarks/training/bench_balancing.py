"""A training step with task balancing beside a plain one and other ways to the same numbers.

Trunk 3 x 1024, shared layer 1024 -> 512, heads 512-128-1 stacked by task, N 256, binary
cross-entropy, Adam. A plain step is the same model without a balancer. Every peer sees the
gradients of the shared layer's weight: their norms, or their Gramian.

The limit counts the multiply-adds of all matrix products at the rate of a large one: those of the
plain step, and with H the lower triangle of x x^T, N^2 I / 2 for H and T N^2 O / 2 for H d_j of
each task; for the Gramian also T^2 N O for <d_i, H d_j> of each pair.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.support import gemm_rate, peak_memory, time_peer
from fastmtl.balancing import Equal, GradNorm, GramianBalancer
from fastmtl.nn import SharedLinear, TaskLinear
from tests.tolerances import assert_close

TASKS = [7, 32, 100]
N, WIDTH, SHARED, HEAD = 256, 1024, 512, 128


class Network(nn.Module):
    """(N, 1024) -> task losses (T,)."""

    def __init__(self, tasks: int) -> None:
        super().__init__()
        layers = [nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()) for _ in range(3)]
        self.trunk = nn.Sequential(*layers)
        self.shared = SharedLinear(WIDTH, SHARED, tasks)
        self.first = TaskLinear(SHARED, HEAD, tasks)
        self.last = TaskLinear(HEAD, 1, tasks)

    def forward(self, x: Tensor, targets: Tensor) -> Tensor:
        return self.losses(self.shared(self.trunk(x)), targets)

    def losses(self, shared: Tensor, targets: Tensor) -> Tensor:
        """Of the T views (T, N, 512) of the shared layer's output."""
        logits = self.last(self.first(shared.relu()).relu()).squeeze(2)
        return F.binary_cross_entropy_with_logits(logits, targets.T, reduction="none").mean(1)


class Step:
    """One step of training: forward, the backward pass of a peer, optimizer."""

    def __init__(self, tasks: int) -> None:
        torch.manual_seed(0)
        self.net = Network(tasks)
        self.x, self.targets = torch.randn(N, WIDTH), (torch.rand(N, tasks) > 0.7).float()
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-5, fused=True)

    def __call__(self) -> Tensor | None:
        seen = self.backward(self.net(self.x, self.targets))
        self.optimizer.step()
        self.optimizer.zero_grad()
        return seen

    def backward(self, losses: Tensor) -> Tensor | None:
        """Gradients into `.grad`; returns norms (T,) or Gramian (T, T) at the shared layer."""
        raise NotImplementedError


class Plain(Step):
    def __init__(self, tasks: int) -> None:
        super().__init__(tasks)
        self.balancer = Equal(tasks)

    def backward(self, losses: Tensor) -> None:
        self.balancer.backward(losses)


class Norms(Step):
    def __init__(self, tasks: int) -> None:
        super().__init__(tasks)
        self.balancer = GradNorm(self.net)

    def backward(self, losses: Tensor) -> Tensor:
        weights = self.balancer.weights.clone()
        self.balancer.backward(losses)
        return self.net.shared.task_grad_norms() / weights


class Gramian(Step):
    def __init__(self, tasks: int) -> None:
        super().__init__(tasks)
        self.balancer = GramianBalancer(self.net, lambda gramian: gramian.new_ones(tasks))

    def backward(self, losses: Tensor) -> Tensor:
        self.balancer.backward(losses)
        return self.net.shared.task_grad_gramian()


class OneByOne(Step):
    """One autograd.grad per task, then the backward pass of the weighted sum."""

    def backward(self, losses: Tensor) -> Tensor:
        norms = [
            torch.autograd.grad(loss, self.net.shared.weight, retain_graph=True)[0].norm()
            for loss in losses
        ]
        losses.sum().backward()
        return torch.stack(norms)


class Batched(Step):
    """The same T gradients in one batched pass."""

    def backward(self, losses: Tensor) -> Tensor:
        (grads,) = torch.autograd.grad(
            losses,
            self.net.shared.weight,
            torch.eye(len(losses)),
            is_grads_batched=True,
            retain_graph=True,
        )
        losses.sum().backward()
        return grads.flatten(1).norm(dim=1)


class Autogram(Step):
    """TorchJD's engine over the shared layer."""

    def __init__(self, tasks: int) -> None:
        super().__init__(tasks)
        engine = pytest.importorskip("torchjd.autogram").Engine
        linear = nn.Linear(WIDTH, SHARED)
        linear.load_state_dict(self.net.shared.state_dict())
        linear.bias.requires_grad_(False)  # its Gramian is that of all parameters
        self.linear, self.net.shared = linear, nn.Sequential(linear, Expand(tasks))
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-5, fused=True)
        self.engine = engine(linear, batch_dim=None)

    def backward(self, losses: Tensor) -> Tensor:
        gramian: Tensor = self.engine.compute_gramian(losses)
        losses.backward(torch.ones(len(losses)))
        return gramian


class Expand(nn.Module):
    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.tasks = tasks

    def forward(self, y: Tensor) -> Tensor:
        return y.expand(self.tasks, *y.shape)


class MTLBackward(Step):
    """TorchJD's mtl_backward: the Jacobian of all shared parameters."""

    def __call__(self) -> None:
        autojac = pytest.importorskip("torchjd.autojac")
        aggregation = pytest.importorskip("torchjd.aggregation")
        features = F.linear(self.net.trunk(self.x), self.net.shared.weight, self.net.shared.bias)
        losses = self.net.losses(features.expand(len(self.targets.T), -1, -1), self.targets)
        shared = [*self.net.trunk.parameters(), *self.net.shared.parameters()]
        # The heads are one graph, which the tasks go through one after the other.
        autojac.mtl_backward(
            list(losses), features=features, shared_params=shared, retain_graph=True
        )
        autojac.jac_to_grad(shared, aggregation.Sum())
        self.optimizer.step()
        self.optimizer.zero_grad()


PEERS: dict[str, type[Step]] = {
    "plain step": Plain,
    "fastmtl": Norms,
    "fastmtl, Gramian": Gramian,
    "one autograd.grad per task": OneByOne,
    "is_grads_batched": Batched,
    "TorchJD autogram": Autogram,
    "TorchJD mtl_backward": MTLBackward,
}


@lru_cache
def gradients(tasks: int) -> Tensor:
    """The tasks' gradients at the shared layer, (T, O I), each from a graph of its own."""
    step = Plain(tasks)
    net = step.net
    x = net.trunk(step.x).detach()
    y = F.linear(x, net.shared.weight, net.shared.bias).detach().requires_grad_()
    rows = []
    for task in range(tasks):
        hidden = F.linear(y.relu(), net.first.weight[task], net.first.bias[task]).relu()
        logits = F.linear(hidden, net.last.weight[task], net.last.bias[task]).squeeze(1)
        loss = F.binary_cross_entropy_with_logits(logits, step.targets[:, task])
        rows.append((torch.autograd.grad(loss, y)[0].double().T @ x.double()).flatten())
    return torch.stack(rows)


def flops(tasks: int) -> float:
    """Of the matrix products of a plain step: forward once, backward twice, without the gradient
    of the first layer's input."""
    trunk = 2 * N * WIDTH * WIDTH * (3 * 3 - 1)
    return trunk + 3 * 2 * N * (WIDTH * SHARED + tasks * (SHARED * HEAD + HEAD))


def extra_flops(peer: str, tasks: int) -> float:
    """Of what balancing adds to them."""
    norms = N * N * (WIDTH + tasks * SHARED)
    extra = {"plain step": 0, "fastmtl": norms}
    extra["fastmtl, Gramian"] = norms + 2 * tasks * tasks * N * SHARED
    return extra[peer]


@pytest.mark.parametrize("tasks", TASKS)
@pytest.mark.parametrize("peer", PEERS)
def test_balancing(benchmark: Any, peer: str, tasks: int) -> None:
    if peer == "is_grads_batched" and tasks > 32:
        pytest.skip(f"its (T, T, N, O) gradients take {4e-9 * tasks**2 * N * SHARED:.0f} GB")
    step, plain = PEERS[peer](tasks), Plain(tasks)
    seen = step()
    if seen is not None:
        grads = gradients(tasks)
        gramian = grads @ grads.T
        assert_close(seen, gramian if seen.dim() == 2 else gramian.diagonal().sqrt(), scale=10)
    limited = peer == "plain step" or peer.startswith("fastmtl")
    time_peer(
        benchmark,
        peer,
        step,
        group=f"training step with balancing, T {tasks}",
        limit=(flops(tasks) + extra_flops(peer, tasks)) / gemm_rate() if limited else None,
        limit_name="matrix-product rate",
        beside=plain if peer != "plain step" else None,
    )
    benchmark.extra_info["peak_memory"] = peak_memory(step)
