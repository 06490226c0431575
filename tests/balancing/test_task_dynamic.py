"""TaskDynamicBalancing against the double backward of its equation, and its penalty."""

from __future__ import annotations

import pytest
import torch

from fastmtl.balancing import GradNorm, TaskDynamicBalancing
from tests.balancing.networks import (
    F64,
    Net,
    T,
    batch,
    differentiable,
    step_by_autograd,
    task_norms,
)
from tests.tolerances import assert_close

POSITIVES = [20.0, 300.0, 0.0, 45.0]
SAMPLES = 600


@pytest.mark.parametrize("normalize", [True, False])
def test_closed_form_is_the_double_backward(normalize: bool) -> None:
    net, x = Net(), batch()
    balancer = TaskDynamicBalancing(net, POSITIVES, SAMPLES, normalize=normalize, lr=1e-3).double()
    factors = SAMPLES / torch.tensor(POSITIVES, dtype=F64).clamp(min=1)
    if normalize:
        factors = factors / factors.mean()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    initial, weights = net(x).detach(), torch.ones(T, dtype=F64)
    for _ in range(4):
        losses = differentiable(net, x)
        weights = step_by_autograd(
            weights,
            losses,
            initial,
            lambda w, losses=losses: task_norms(losses, w, net.shared.weight),
            factors=factors,
            normalize=normalize,
            lr=1e-3,
        )
        balancer.backward(net(x))
        optimizer.step()
        optimizer.zero_grad()
        # The factors are float32 until the balancer is.
        assert_close(balancer.weights, weights, dtype=torch.float32)


def train(balancer: GradNorm, net: Net) -> torch.Tensor:
    for seed in range(3):
        balancer.backward(net(batch(seed=seed)))
    return balancer.weights


def test_without_the_penalty_it_is_gradnorm() -> None:
    net = Net()
    without = TaskDynamicBalancing(net, POSITIVES, SAMPLES, imbalance_penalty=False)
    assert torch.equal(train(without, net), train(GradNorm(net), net))


@pytest.mark.parametrize("normalize", [True, False])
def test_equal_counts_are_no_imbalance(normalize: bool) -> None:
    net = Net()
    equal = TaskDynamicBalancing(net, [SAMPLES] * T, SAMPLES, normalize=normalize)
    assert torch.equal(train(equal, net), train(GradNorm(net, normalize=normalize), net))


def test_rarity_common_to_all_tasks_changes_nothing() -> None:
    net = Net()
    rare = TaskDynamicBalancing(net, [1, 2, 3, 4], SAMPLES)
    common = TaskDynamicBalancing(net, [100, 200, 300, 400], SAMPLES)
    assert_close(train(rare, net), train(common, net).double())


def test_the_rare_task_moves_fastest() -> None:
    balancer = TaskDynamicBalancing(Net(), [10, 100, 100, 100], SAMPLES, normalize=False)
    assert_close(balancer.factors, torch.tensor([60.0, 6.0, 6.0, 6.0]).double())


@pytest.mark.parametrize(
    ("positives", "samples", "message"),
    [
        ([1, 2, 3], 10, r"positives: expected \(num_tasks,\) = \(4,\), got shape \(3,\)"),
        ([1, 2, 3, 11], 10, r"positives: expected numbers in \[0, samples = 10\]"),
        ([1, 2, 3, -1], 10, "positives: expected numbers"),
        ([1, 2, 3, float("nan")], 10, "positives: expected numbers"),
        ([1, 2, 3, 4], 0, "samples: expected at least 1, got 0"),
    ],
)
def test_arguments_are_checked(positives: list[float], samples: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TaskDynamicBalancing(Net(), positives, samples)
