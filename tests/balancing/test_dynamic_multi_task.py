"""The re-balancing of DynamicMultiTask at the end of a cycle."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fastmtl.balancing import DynamicMultiTask, TaskDynamicBalancing
from tests.balancing.networks import F64, Net, T, batch
from tests.tolerances import assert_close

POSITIVES = [20, 300, 150, 45]


def make(net: Net, **options: Any) -> DynamicMultiTask:
    return DynamicMultiTask(net, POSITIVES, 300, **options).double()


def cycle(balancer: TaskDynamicBalancing, net: Net, masks: list[Tensor] | None = None) -> Tensor:
    """A cycle of three batches; the losses (3, T)."""
    rows = []
    for seed in range(3):
        losses = net(batch(seed=seed))
        balancer.backward(losses, present=None if masks is None else masks[seed])
        rows.append(losses.detach())
    return torch.stack(rows)


def test_within_a_cycle_it_is_task_dynamic_balancing() -> None:
    net = Net()
    balancer, plain = make(net), TaskDynamicBalancing(net, POSITIVES, 300).double()
    cycle(balancer, net)
    cycle(plain, net)
    assert torch.equal(balancer.weights, plain.weights)


@pytest.mark.parametrize("cycle_reset", [True, False])
def test_rebalancing_by_the_average_losses_of_the_cycle(cycle_reset: bool) -> None:
    net = Net()
    balancer = make(net, cycle_reset=cycle_reset)
    for _ in range(2):
        averages = cycle(balancer, net).mean(0)
        start = torch.ones(T, dtype=F64) if cycle_reset else balancer.weights
        expected = start * averages.max() / averages
        balancer.end_cycle()
        assert_close(balancer.weights, T * expected / expected.sum())


def test_a_loss_that_vanishes_takes_all_weights_unless_factors_are_bounded() -> None:
    def largest(bound: float | None) -> float:
        net = Net()
        balancer = make(net, factor_bound=bound)
        balancer.backward(net(batch()) * torch.tensor([1.0, 1e-6, 1.0, 1.0], dtype=F64))
        balancer.end_cycle()
        return float(balancer.weights.max())

    assert largest(None) > 0.99 * T
    # The others have a factor of at least 1.
    assert largest(4.0) <= T * 4 / (4 + T - 1)


@pytest.mark.parametrize(("bound", "error"), [(1, ValueError), ("4", TypeError)])
def test_a_wrong_bound_is_named(bound: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^factor_bound: expected a "):
        make(Net(), factor_bound=bound)


def test_a_cycle_starts_from_equal_weighted_losses() -> None:
    net = Net()
    balancer = make(net)
    for _ in range(20):
        averages = cycle(balancer, net).mean(0)
        balancer.end_cycle()
        weighted = balancer.weights * averages
        assert_close(weighted, weighted.mean().expand(T))


def test_without_the_reset_factors_pile_up() -> None:
    # The network does not learn, so each cycle multiplies by the same factors.
    def spread(cycle_reset: bool) -> float:
        torch.manual_seed(0)
        net = Net()
        balancer = make(net, cycle_reset=cycle_reset, lr=1e-9, floor=1e-9)
        for _ in range(4):
            cycle(balancer, net)
            balancer.end_cycle()
        return float(balancer.weights.max() / balancer.weights.min())

    assert spread(False) == pytest.approx(spread(True) ** 4, rel=1e-3)


def test_cycle_reset_is_a_flag() -> None:
    with pytest.raises(TypeError, match=r"^cycle_reset: expected True or False, got 1"):
        make(Net(), cycle_reset=1)


def test_averages_are_over_the_steps_at_which_a_task_was_present() -> None:
    net = Net()
    balancer = make(net)
    masks = [
        torch.tensor([True, True, False, False]),
        torch.tensor([True, False, True, False]),
        torch.tensor([True, True, True, False]),
    ]
    losses = cycle(balancer, net, masks)
    mask = torch.stack(masks)
    averages = (losses * mask).sum(0)[:3] / mask.sum(0)[:3]
    before = balancer.weights.clone()
    balancer.end_cycle()
    expected = averages.max() / averages
    expected = expected * (T - before[3]) / expected.sum()
    assert_close(balancer.weights, torch.cat([expected, before[3:]]))


def test_an_empty_cycle_changes_nothing() -> None:
    net = Net()
    balancer = make(net)
    cycle(balancer, net)
    balancer.end_cycle()
    before = balancer.weights.clone()
    balancer.end_cycle()
    assert torch.equal(balancer.weights, before)


def test_losses_of_zero_keep_their_weight() -> None:
    net = Net()
    balancer = make(net)
    factor = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=F64)
    balancer.backward(net(batch()) * factor)
    balancer.end_cycle()
    assert balancer.weights[1] == 1
    assert balancer.weights.isfinite().all()
    assert_close(balancer.weights.sum(), torch.tensor(float(T)))


def test_vanishing_losses_do_not_overflow() -> None:
    net = Net()
    balancer = make(net).float()
    factor = torch.tensor([1.0, 1e-40, 1.0, 1.0], dtype=F64)
    balancer.backward(net(batch()) * factor)
    balancer.end_cycle()
    assert balancer.weights.isfinite().all()
    assert (balancer.weights > 0).all()


def test_the_cycle_is_part_of_the_state() -> None:
    net = Net()
    balancer, twin = make(net), make(net)
    cycle(balancer, net)
    twin.load_state_dict(balancer.state_dict())
    balancer.end_cycle()
    twin.end_cycle()
    assert torch.equal(balancer.weights, twin.weights)
