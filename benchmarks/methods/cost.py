"""What each method adds to a step of training, beside other ways to the tasks' gradients.

A plain step is forward pass, the backward pass of the losses' sum and Adam's step; each method's
runs in turn with it. Of others' ways two: LibMTL's, one backward pass for each task, here without
any solver, so that no method of that way takes less; and TorchJD's, its Jacobian of the shared
parameters and its own aggregator of the same name. Networks are wider than those that learn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.methods.problem import Network, Problem
from benchmarks.methods.quality import build
from benchmarks.support import in_turn, peak_memory
from fastmtl.balancing import Balancer
from fastmtl.nn import SharedLinear
from fastmtl.training.recipes import BALANCERS

# How many times wider; about as much for each problem as makes matrix products most of a step.
WIDTHS = {"rooms": 2, "faces": 4, "yt8m_top100": 8}
SECONDS = 0.5  # for a method and for the plain step beside it, each
OURS, LIBMTL, TORCHJD = "fastmtl", "T backward passes", "TorchJD"
# TorchJD's aggregators of the same methods.
AGGREGATORS: dict[str, tuple[str, dict[str, float]]] = {
    "mgda": ("MGDA", {}),
    "pcgrad": ("PCGrad", {}),
    "gradvac": ("GradVac", {}),
    "cagrad": ("CAGrad", {"c": 0.5}),
    "fairgrad": ("FairGrad", {"alpha": 1.0}),
    "imtlg": ("IMTLG", {}),
    "alignedmtl": ("AlignedMTL", {}),
    "upgrad": ("UPGrad", {}),
    "dualproj": ("DualProj", {}),
    "config": ("ConFIG", {}),
}


class Step:
    """One step of training, on the first batch; `balancer` None adds the losses up."""

    def __init__(self, problem: Problem, method: str | None = None) -> None:
        torch.manual_seed(0)
        self.problem = problem
        self.network = problem.network(WIDTHS[problem.name])
        self.x, *self.targets = (part[: problem.batch_size] for part in problem.train)
        self.balancer: Balancer | None = None
        parameters = list(self.network.parameters())
        if method is not None:
            self.balancer = build(method, problem, self.network)
            parameters += self.balancer.parameters()
        self.optimizer = torch.optim.Adam(parameters, lr=1e-5, fused=True)

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        self.backward()
        self.optimizer.step()

    def backward(self) -> None:
        """Gradients into `.grad`."""
        losses = self.problem.losses(self.network(self.x), self.targets)
        if self.balancer is None:
            losses.sum().backward()
        else:
            self.balancer.backward(losses)

    def shared(self) -> list[nn.Parameter]:
        """What the tasks share."""
        return [*self.network.trunk.parameters(), *self.network.shared.parameters()]


class OneByOne(Step):
    """Backward through all for each task, with the shared parameters' gradients kept, as LibMTL
    takes them; the sum of the tasks' is then put in their place."""

    def backward(self) -> None:
        losses = self.problem.losses(self.network(self.x), self.targets)
        shared, rows = self.shared(), []
        for loss in losses:
            loss.backward(retain_graph=True)
            rows.append(
                torch.cat([each.grad.flatten() for each in shared if each.grad is not None])
            )
            for each in shared:
                each.grad = None
        combined = torch.stack(rows).sum(0).split([each.numel() for each in shared])
        for each, grad in zip(shared, combined, strict=True):
            each.grad = grad.view_as(each)


class Jacobian(Step):
    """TorchJD's mtl_backward and an aggregator."""

    def __init__(self, problem: Problem, method: str) -> None:
        super().__init__(problem)
        from torchjd import aggregation, autojac

        name, options = AGGREGATORS[method]
        self.aggregator = getattr(aggregation, name)(**options)
        self.autojac = autojac

    def backward(self) -> None:
        features = representation(self.network, self.x)
        views = features.expand(self.problem.num_tasks, *features.shape)
        losses = self.problem.losses(self.network.heads(views), self.targets)
        shared = self.shared()
        # Heads that are stacked by task are one graph, which the tasks go through in turn.
        self.autojac.mtl_backward(
            list(losses), features=features, shared_params=shared, retain_graph=True
        )
        self.autojac.jac_to_grad(shared, self.aggregator)


def representation(network: Network, x: Tensor) -> Tensor:
    """What the tasks share, before it is split."""
    hidden: Tensor = network.trunk(x)
    layer = network.shared
    if not isinstance(layer, SharedLinear):
        return hidden
    features: Tensor = nn.functional.linear(hidden, layer.weight, layer.bias)
    return features


def steps(problem: Problem) -> Iterator[tuple[str, str, Callable[[], Step]]]:
    """Way, method and what makes its step; ways of others where they are installed."""
    for method in BALANCERS:
        yield OURS, method, partial(Step, problem, method)
    yield LIBMTL, "", partial(OneByOne, problem)
    for method in AGGREGATORS:
        yield TORCHJD, method, partial(Jacobian, problem, method)


def measure(problem: Problem, make: Callable[[], Step]) -> dict[str, Any] | None:
    """Seconds and bytes of a step and of a plain one beside it; None where its way needs a package
    that is not installed."""
    try:
        step = make()
    except ImportError:
        return None
    plain = Step(problem)
    once = max(in_turn(step, plain, 1))
    seconds, beside = in_turn(step, plain, max(2, min(200, int(SECONDS / once))))
    return {
        "seconds": seconds,
        "plain_seconds": beside,
        "bytes": peak_memory(step),
        "plain_bytes": peak_memory(plain),
    }
