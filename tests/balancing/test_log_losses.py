"""STCH and DBMTL against their authors' formulas, differentiated by autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastmtl.balancing import DBMTL, STCH
from tests.balancing.networks import F64, Net, T, batch
from tests.tolerances import assert_close


@pytest.mark.parametrize("mu", [0.1, 1.0, 5.0])
def test_stch_is_the_gradient_of_the_authors_objective(mu: float) -> None:
    generator = torch.Generator().manual_seed(0)
    balancer, nadir = STCH(T, mu, warmup=2, momentum=0.0).double(), torch.ones(T, dtype=F64)
    for cycle in range(4):
        seen = []
        for _ in range(3):
            losses = torch.rand(T, dtype=F64, generator=generator) + 0.1
            losses.requires_grad_()
            balancer.backward(losses)
            if cycle < 2:
                objective = losses.log().sum()
            else:
                relative = (losses / nadir).log()
                objective = T * mu * (relative / mu).exp().sum().log()
            (expected,) = torch.autograd.grad(objective, losses)
            assert_close(losses.grad, expected)
            seen.append(losses.detach())
        if cycle == 1:
            nadir = torch.stack(seen).mean(0)
        balancer.end_cycle()


def test_a_task_first_seen_after_the_warm_up_has_the_weight_of_a_loss_at_its_nadir() -> None:
    balancer = STCH(2, warmup=1, momentum=0.0)
    for losses in ([1.0, 0.0], [1.0, 3.0]):
        balancer.backward(torch.tensor(losses, requires_grad=True))
        balancer.end_cycle()
    torch.testing.assert_close(balancer.weights, torch.tensor([1.0, 1 / 3]))
    torch.testing.assert_close(balancer.nadir, torch.tensor([1.0, 3.0]))


def dual_balanced(losses: Tensor, weight: Tensor) -> Tensor:
    """The authors' code with their beta 0."""
    grads = torch.stack(
        [torch.autograd.grad(loss.log(), weight, retain_graph=True)[0] for loss in losses]
    )
    norms = grads.flatten(1).norm(dim=1)
    return (norms.max() / norms)[:, None, None].mul(grads).sum(0)


def test_db_mtl_is_the_authors_combination() -> None:
    net = Net()
    balancer = DBMTL(net, momentum=0.0).double()
    for seed in range(3):
        x = batch(seed=seed)
        net.shared.weighting, weighting = None, net.shared.weighting
        net.shared.watch = None
        losses = net(x)
        expected = dual_balanced(losses, net.shared.weight)
        of_heads = torch.autograd.grad(losses.log().sum(), net.last.weight)[0]
        net.shared.weighting = weighting
        net.zero_grad()
        balancer.backward(net(x))
        assert_close(net.shared.weight.grad, expected)
        assert_close(net.last.weight.grad, of_heads)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mu": 0.0}, "mu: expected a finite number > 0.0, got 0.0"),
        ({"warmup": 0}, "warmup: expected at least 1, got 0"),
        ({"momentum": 1.0}, r"momentum: expected a number in \[0, 1\), got 1.0"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        STCH(2, **arguments)
