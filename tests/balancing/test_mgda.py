"""MGDA: the least-norm point against its optimality conditions, and the step it gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastmtl.balancing import MGDA
from fastmtl.balancing.mgda import _least_norm
from fastmtl.nn import TaskFork
from tests.balancing.networks import F64, Net, T, batch
from tests.tolerances import assert_close


def gap(gramian: Tensor, weights: Tensor) -> float:
    """How far c^T S c can be above its minimum over the simplex, relative to the largest norm."""
    slope = gramian @ weights
    return float((weights @ slope - slope.min()) / gramian.diagonal().max())


@pytest.mark.parametrize("num_tasks", [1, 2, 3, 7, 30])
@pytest.mark.parametrize("shift", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_optimality(num_tasks: int, shift: float, dtype: torch.dtype) -> None:
    scale = torch.logspace(-1, 1, num_tasks, dtype=dtype).unsqueeze(1)
    for _ in range(5):
        grads = scale * (torch.randn(num_tasks, 200, dtype=dtype) + shift)
        gramian = grads @ grads.T
        weights = _least_norm(gramian, 400)
        assert (weights >= 0).all()
        assert_close(weights.sum(), torch.ones((), dtype=F64), scale=10)
        assert gap(gramian, weights) < 20 * torch.finfo(dtype).eps


@pytest.mark.parametrize("cosine", [-1.0, -0.5, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("ratio", [0.01, 1.0, 3.0])
def test_two_tasks_have_a_closed_form(cosine: float, ratio: float) -> None:
    """Sener and Koltun 2018, algorithm 1."""
    inner = cosine * ratio
    gramian = torch.tensor([[1.0, inner], [inner, ratio**2]], dtype=F64)
    weights = _least_norm(gramian, 1)
    apart = 1 + ratio**2 - 2 * inner
    first = 0.5 if apart == 0 else min(max((ratio**2 - inner) / apart, 0.0), 1.0)
    assert_close(weights, torch.tensor([first, 1 - first], dtype=F64))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale_of_the_gradients_changes_nothing(scale: float) -> None:
    grads = torch.randn(5, 8)
    gramian = grads @ grads.T
    expected = _least_norm(gramian.double(), 100)
    assert_close(_least_norm(gramian * scale, 100), expected, scale=100)


def test_degenerate_gramians() -> None:
    assert torch.equal(_least_norm(torch.zeros(3, 3), 10), torch.zeros(3))
    assert_close(_least_norm(torch.ones(4, 4), 10).sum(), torch.ones(()))
    one = torch.zeros(3, 3)
    one[1, 1] = 4
    assert _least_norm(one, 10).tolist() == [0, 1, 0]


@pytest.mark.parametrize("trunk", ["mlp", "gru"])
def test_no_loss_rises_along_the_combined_gradient(trunk: str) -> None:
    net, x = Net(trunk), batch(trunk)
    losses = net(x)
    grads = torch.stack(
        [
            torch.autograd.grad(loss, net.shared.weight, retain_graph=True)[0].flatten()
            for loss in losses
        ]
    )
    balancer = MGDA(net, iterations=1000).double()
    balancer.backward(net(x))
    combined = net.shared.weight.grad.flatten()
    assert_close(combined, balancer.weights @ grads)
    assert (grads @ combined >= combined @ combined * (1 - 1e-6) - 1e-12).all()


def test_at_a_fork_it_is_the_least_norm_of_the_representation_gradients() -> None:
    fork = TaskFork(T)
    balancer = MGDA(fork, iterations=1000).double()
    z = torch.randn(6, 3, dtype=F64, requires_grad=True)
    directions = torch.randn(T, 6, 3, dtype=F64) + 0.5
    balancer.backward((fork(z) * directions).sum((1, 2)))
    flat = directions.flatten(1)
    assert gap(flat @ flat.T, balancer.weights) < 1e-12
    assert_close(z.grad.flatten(), balancer.weights @ flat)


def test_absent_tasks_do_not_stop_the_others() -> None:
    """A gradient of zero would be the least-norm point of any hull that it belongs to."""
    net, x = Net(), batch()
    balancer = MGDA(net).double()
    balancer.backward(net(x) * torch.tensor([1.0, 0.0, 1.0, 1.0]))
    assert_close(balancer.weights[[0, 2, 3]].sum(), torch.ones((), dtype=F64))
    assert net.shared.weight.grad.norm() > 0


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="iterations: expected at least 1, got 0"):
        MGDA(Net(), iterations=0)
