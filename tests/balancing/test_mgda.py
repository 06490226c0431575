"""MGDA: the least-norm point against its optimality conditions, and the step it gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastmtl.balancing import MGDA
from fastmtl.nn import TaskFork
from tests.balancing.networks import F64, Net, T, batch
from tests.tolerances import assert_close


def gap(gramian: Tensor, weights: Tensor) -> float:
    """How far c^T S c can be above its minimum over the simplex, relative to the largest norm."""
    slope = gramian @ weights
    return float((weights @ slope - slope.min()) / gramian.diagonal().max())


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


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_normalized_weights_do_not_depend_on_the_scale_of_a_loss(scale: float) -> None:
    fork = TaskFork(T)
    balancer = MGDA(fork, iterations=1000, normalize=True).double()
    z = torch.zeros(T, 8, dtype=F64, requires_grad=True)
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(T, T, 8, dtype=F64, generator=generator) + 0.5
    factors = torch.ones(T, dtype=F64)
    factors[1] = scale
    balancer.backward(factors * (fork(z) * directions).sum((1, 2)))
    flat = directions.flatten(1)
    unit = flat / flat.norm(dim=1, keepdim=True)
    assert gap(unit @ unit.T, balancer.weights) < 1e-12
    assert_close(z.grad.flatten(), (balancer.weights * factors) @ flat)


def test_normalized_leaves_out_gradients_of_zero() -> None:
    net, x = Net(), batch()
    balancer = MGDA(net, normalize=True).double()
    balancer.backward(net(x) * torch.tensor([1.0, 0.0, 1.0, 1.0]))
    assert balancer.weights.isfinite().all()
    assert_close(balancer.weights[[0, 2, 3]].sum(), torch.ones((), dtype=F64))


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="iterations: expected at least 1, got 0"):
        MGDA(Net(), iterations=0)
