"""The methods that look at losses alone, against plain implementations of their equations."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from fastmtl.balancing import (
    FAMO,
    Balancer,
    DynamicWeightAverage,
    GeometricMean,
    RandomLossWeighting,
)
from tests.balancing.networks import F64, Net, T, batch
from tests.tolerances import assert_close


def leaf(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64, requires_grad=True)


def test_dynamic_weight_average() -> None:
    balancer = DynamicWeightAverage(2, temperature=1.5).double()
    epochs = [[(4.0, 1.0), (2.0, 3.0)], [(1.0, 1.0), (2.0, 2.0)], [(1.0, 0.5)]]
    means = [torch.tensor(epoch, dtype=F64).mean(0) for epoch in epochs]
    expected = [torch.ones(2, dtype=F64), torch.ones(2, dtype=F64)]
    for before, last in pairwise(means):
        powers = torch.exp(last / before / 1.5)
        expected.append(2 * powers / powers.sum())
    for epoch, weights in zip(epochs, expected, strict=False):
        for values in epoch:
            total = balancer.backward(losses := leaf(*values))
            assert_close(total, (weights * losses).sum())
            assert_close(losses.grad, weights)
        balancer.end_cycle()
    assert_close(balancer.weights, expected[-1])


def test_dynamic_weight_average_without_labels_for_a_cycle() -> None:
    balancer = DynamicWeightAverage(2).double()
    for second in (3.0, 0.0, 1.0):
        balancer.backward(leaf(1.0, second))
        balancer.end_cycle()
    ratios = torch.exp(torch.tensor([1.0, 1 / 3], dtype=F64) / 2)
    assert_close(balancer.weights, 2 * ratios / ratios.sum())


def test_random_weights_are_one_on_average() -> None:
    balancer = RandomLossWeighting(T)
    draws = []
    for _ in range(2000):
        balancer.backward(torch.ones(T, requires_grad=True) * 1)
        draws.append(balancer.weights.clone())
    stacked = torch.stack(draws)
    torch.testing.assert_close(stacked.mean(0), torch.ones(T), atol=0.1, rtol=0)
    # Differences of independent standard normals.
    logs = stacked.log()
    assert abs(float((logs[:, 0] - logs[:, 1]).std()) - 2**0.5) < 0.1


@pytest.mark.parametrize("absent", [False, True])
def test_geometric_mean_is_differentiated(absent: bool) -> None:
    net, x = Net(), batch()
    present = torch.tensor([True, not absent, True, True])
    product = net(x)[present].log().mean().exp()
    expected = torch.autograd.grad(product, list(net.parameters()))
    total = GeometricMean(T, momentum=0).double().backward(net(x), present=present)
    assert_close(total, product)
    for parameter, grad in zip(net.parameters(), expected, strict=True):
        assert_close(parameter.grad, grad)


def test_geometric_mean_of_extremes() -> None:
    losses = torch.tensor([1e-20, 1e20, 1e15], requires_grad=True)
    total = GeometricMean(3).backward(losses)
    assert_close(total, torch.tensor(1e5, dtype=F64), scale=10)
    assert_close(losses.grad * losses.detach(), total.double().expand(3) / 3)


@pytest.mark.parametrize("method", [GeometricMean, FAMO])
def test_a_rare_label_does_not_take_the_weight_of_all_others(method: type[Balancer]) -> None:
    """Its loss is near 0 on the 19 batches of 20 that hold no positive of it."""
    balancer = method(3)
    shares = torch.zeros(3)
    for step in range(2000):
        rare = 2.0 if step % 20 == 0 else 1e-6
        losses = torch.tensor([0.1, 0.2, rare])
        balancer.backward(losses.requires_grad_())
        if step >= 1000:
            # What each task contributes to the gradients of logarithms of the losses.
            shares += (balancer.weights * losses).detach()
    shares /= shares.mean()
    torch.testing.assert_close(shares, torch.ones(3), rtol=0, atol=0.25)


@pytest.mark.parametrize("method", [GeometricMean, FAMO])
def test_momentum_is_that_of_a_running_mean(method: type[Balancer]) -> None:
    balancer = method(2, momentum=0.5).double()
    for first in (1.0, 4.0):
        balancer.backward(leaf(first, 1.0))
    assert_close(balancer.running.means, torch.tensor([3.0, 1.0]))
    # An absent task keeps its mean.
    balancer.backward(leaf(0.0, 4.0))
    assert_close(balancer.running.means, torch.tensor([3.0, 19 / 7], dtype=F64))
    with pytest.raises(ValueError, match=r"momentum: expected a number in \[0, 1\), got 1"):
        method(2, momentum=1)
    with pytest.raises(ValueError, match="momentum: "):
        method(2, momentum=-0.1)


class PlainFAMO:
    """Algorithm 1 with torch's softmax, autograd and Adam."""

    def __init__(self, tasks: int) -> None:
        self.xi = nn.Parameter(torch.zeros(tasks, dtype=F64))
        self.optimizer = torch.optim.Adam([self.xi], lr=0.025, weight_decay=1e-3)

    def weights(self, losses: Tensor) -> Tensor:
        shares = torch.softmax(self.xi, 0).detach() / losses.detach()
        return len(shares) * shares / shares.sum()

    def update(self, before: Tensor, after: Tensor) -> None:
        z = torch.softmax(self.xi, 0)
        (self.xi.grad,) = torch.autograd.grad(z, self.xi, before.log() - after.log())
        self.optimizer.step()


@pytest.mark.parametrize("same_batch", [False, True])
def test_famo(same_batch: bool) -> None:
    net = Net()
    twin = copy.deepcopy(net)
    balancer, plain = FAMO(T, momentum=0).double(), PlainFAMO(T)
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.05) for model in (net, twin)]
    previous = None
    for seed in range(6):
        x = batch(seed=seed)
        losses = twin(x)
        if previous is not None and not same_batch:
            plain.update(previous, losses.detach())
        optimizers[1].zero_grad()
        weights = plain.weights(losses)
        (weights * losses).sum().backward()
        optimizers[1].step()
        previous = losses.detach()
        if same_batch:
            plain.update(previous, twin(x).detach())

        optimizers[0].zero_grad()
        balancer.backward(net(x))
        optimizers[0].step()
        if same_batch:
            balancer.update(net(x))
        assert_close(balancer.weights, weights, scale=100)
    assert_close(balancer.logits, plain.xi.detach(), scale=100)


def test_famo_leaves_absent_tasks_alone() -> None:
    balancer = FAMO(3).double()
    balancer.backward(leaf(1.0, 2.0, 3.0))
    weight = balancer.weights[1].clone()
    losses = leaf(1.0, 7.0, 2.0)
    balancer.backward(losses, present=torch.tensor([True, False, True]))
    assert balancer.weights[1] == weight
    assert_close(balancer.weights.sum(), torch.tensor(3.0))
    assert losses.grad[1] == 0
    assert balancer.pending.tolist() == [True, False, True]


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="temperature: expected a finite number > 0"):
        DynamicWeightAverage(2, temperature=0)
    with pytest.raises(ValueError, match="lr: expected a finite number > 0"):
        FAMO(2, lr=0)
    with pytest.raises(ValueError, match="decay: "):
        FAMO(2, decay=-1)
    with pytest.raises(ValueError, match="floor: "):
        FAMO(2, floor=0)
    with pytest.raises(ValueError, match=r"losses: expected \(num_tasks,\)"):
        FAMO(2).update(torch.ones(3))
