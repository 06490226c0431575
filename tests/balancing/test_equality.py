"""Every method on three trunks against one autograd.grad per task, in float64 to 1e-9."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fastmtl.balancing import (
    FAMO,
    MGDA,
    Balancer,
    DynamicMultiTask,
    DynamicWeightAverage,
    Equal,
    GeometricMean,
    GradNorm,
    GramianBalancer,
    RandomLossWeighting,
    TaskDynamicBalancing,
    UncertaintyWeighting,
)
from fastmtl.nn import SharedLinear, TaskLinear
from tests.balancing.networks import F64, T, step_by_autograd

POSITIVES, SAMPLES = torch.tensor([20.0, 300.0, 150.0, 45.0], dtype=F64), 300


class ConvNet(nn.Module):
    """(N, 2, 6, 6) -> (N, 8), with batch norm: samples of a batch depend on each other."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.out = nn.Linear(48, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.conv(x)).relu().flatten(1))


class BiGRU(nn.Module):
    """(N, L, 6) -> (N, L, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(6, 4, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x)[0]


TRUNKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh()), (7, 6)),
    "conv": (ConvNet, (7, 2, 6, 6)),
    "bigru": (BiGRU, (3, 4, 6)),
}


class Model(nn.Module):
    """Task losses (T,) behind a shared layer."""

    def __init__(self, trunk: str) -> None:
        super().__init__()
        self.trunk = TRUNKS[trunk][0]()
        self.shared = SharedLinear(8, 5, T)
        self.head = TaskLinear(5, 1, T)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        errors = (self.head(self.shared(self.trunk(x)).tanh()) - 1).square()
        return torch.arange(1, T + 1, dtype=F64) * errors.flatten(1).mean(1)


def assert_equal(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected.detach(), rtol=1e-9, atol=1e-9)


def inverse_norms(gramian: Tensor) -> Tensor:
    return gramian.diagonal().rsqrt()


def least_norm_by_search(gramian: Tensor) -> Tensor:
    """argmin over the simplex of c^T S c: the exact solution on the best of all 2^T - 1 faces."""
    best, best_value = torch.zeros(T, dtype=F64), torch.inf
    for face in range(1, 2**T):
        inside = torch.tensor([bool(face >> j & 1) for j in range(T)])
        solution = torch.linalg.solve(
            gramian[inside][:, inside], torch.ones(int(inside.sum()), dtype=F64)
        )
        weights = torch.zeros(T, dtype=F64)
        weights[inside] = solution / solution.sum()
        value = float(weights @ gramian @ weights)
        if (weights >= 0).all() and value < best_value:
            best, best_value = weights, value
    return best


def next_weights(balancer: Balancer, used: Tensor, losses: Tensor, grads: Tensor) -> Tensor:
    """The weights of a norm-based method after its first step, from the gradients (T, O I)."""
    factors = torch.ones(T, dtype=F64)
    if isinstance(balancer, TaskDynamicBalancing):
        factors = SAMPLES / POSITIVES
    return step_by_autograd(
        used,
        losses,
        losses,
        lambda w: (w[:, None] * grads).norm(dim=1),
        factors=factors / factors.mean(),
    )


LOSS_ONLY = [
    Equal,
    UncertaintyWeighting,
    DynamicWeightAverage,
    RandomLossWeighting,
    GeometricMean,
    FAMO,
]
METHODS: dict[str, Callable[[Model], Balancer]] = {
    **{method.__name__: lambda model, method=method: method(T) for method in LOSS_ONLY},
    "GradNorm": GradNorm,
    "TaskDynamicBalancing": lambda model: TaskDynamicBalancing(model, POSITIVES, SAMPLES),
    "DynamicMultiTask": lambda model: DynamicMultiTask(model, POSITIVES, SAMPLES),
    "GramianBalancer": lambda model: GramianBalancer(model, inverse_norms),
    "MGDA": lambda model: MGDA(model, iterations=3000),
}


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("name", METHODS)
def test_a_step_is_that_of_one_gradient_per_task(name: str, trunk: str) -> None:
    model = Model(trunk)
    x = torch.randn(TRUNKS[trunk][1], dtype=F64)
    losses = model(x)
    parameters = list(model.parameters())
    one_by_one = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses]
    shared = [parameter is model.shared.weight for parameter in parameters].index(True)
    grads = torch.stack([each[shared].flatten() for each in one_by_one])
    gramian = grads @ grads.T

    balancer = METHODS[name](model).double()
    model.shared.watch = "gramian"
    before = balancer.weights.clone()
    balancer.backward(model(x))
    used = before if isinstance(balancer, GradNorm) else balancer.weights

    scale = torch.ones(T, dtype=F64) if isinstance(balancer, GramianBalancer) else used
    assert_equal(model.shared.task_grad_norms(), scale * gramian.diagonal().sqrt())
    assert_equal(model.shared.task_grad_gramian(), torch.outer(scale, scale) * gramian)
    if isinstance(balancer, GradNorm):
        assert_equal(balancer.weights, next_weights(balancer, before, losses.detach(), grads))
    elif isinstance(balancer, MGDA):
        assert_equal(used, least_norm_by_search(gramian))
    elif isinstance(balancer, GramianBalancer):
        assert_equal(used, inverse_norms(gramian))
    heads = set(model.head.parameters())
    for index, parameter in enumerate(parameters):
        weights = used
        if isinstance(balancer, GramianBalancer) and parameter in heads:
            weights = torch.ones(T, dtype=F64)
        expected = sum(w * each[index] for w, each in zip(weights, one_by_one, strict=True))
        assert_equal(parameter.grad, expected)
