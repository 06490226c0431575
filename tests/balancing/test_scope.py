"""Balancers that look at other parameters than the shared layer's weight."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastmtl.balancing import (
    MGDA,
    CAGrad,
    DynamicMultiTask,
    GradNorm,
    GramianBalancer,
    TaskDynamicBalancing,
    UPGrad,
)
from tests.balancing import papers
from tests.balancing.networks import F64, Net, T, batch, step_by_autograd
from tests.tolerances import assert_close

SCOPES: dict[str, Any] = {"trunk": "trunk", "layers": ["mlp.0", "shared"], "first": ["mlp"]}
every_scope = pytest.mark.parametrize("name", SCOPES)


def parameters_of(net: Net, name: str) -> list[nn.Parameter]:
    assert net.mlp is not None
    own = [] if name == "first" else list(net.shared.parameters())
    return [*net.mlp.parameters(), *own]


def gradients(losses: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    """One backward pass per task, (T, P)."""
    rows = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses]
    return torch.stack([torch.cat([grad.flatten() for grad in row]) for row in rows])


@every_scope
def test_gradients_are_combined_by_all_parameters_in_scope(name: str) -> None:
    torch.manual_seed(0)
    net = Net()
    twin = copy.deepcopy(net)
    grads = gradients(twin(batch()), parameters_of(twin, name))
    weights = papers.upgrad(grads)
    shared = parameters_of(twin, "trunk")
    expected = weights @ gradients(twin(batch()), shared)
    balancer = UPGrad(net, scope=SCOPES[name]).double()
    balancer.backward(net(batch()))
    combined = torch.cat([p.grad.flatten() for p in parameters_of(net, "trunk")])
    torch.testing.assert_close(combined, expected, rtol=1e-6, atol=1e-8)
    at_layer = UPGrad(twin).double()
    at_layer.backward(twin(batch()))
    assert (at_layer.weights - balancer.weights).abs().max() > 1e-3


@every_scope
def test_gradnorm_takes_the_norms_in_scope(name: str) -> None:
    torch.manual_seed(0)
    net = Net()
    losses = net(batch())
    norms = gradients(losses, parameters_of(net, name)).norm(dim=1)
    balancer = GradNorm(net, scope=SCOPES[name]).double()
    balancer.backward(net(batch()))
    expected = step_by_autograd(
        torch.ones(T, dtype=F64), losses, losses.detach(), lambda weights: weights * norms
    )
    assert_close(balancer.weights, expected)


def test_other_balancers_of_norms_take_a_scope() -> None:
    for method in (TaskDynamicBalancing, DynamicMultiTask):
        net = Net()
        method(net, [1] * T, 5, scope="trunk").double().backward(net(batch()))
        assert net.shared.scope == "trunk"


def test_absent_tasks_have_no_part() -> None:
    net = Net()
    balancer = CAGrad(net, scope="trunk").double()
    balancer.backward(net(batch()), present=torch.tensor([True, False, True, True]))
    assert balancer.weights[1] == 1
    assert net.shared.weight.grad.isfinite().all()


def test_the_factor_of_a_scaler_is_left_out() -> None:
    results = []
    for factor in (1.0, 1024.0):
        torch.manual_seed(0)
        net, seen = Net(), []
        balancer = GramianBalancer(
            net,
            lambda gramian, seen=seen: seen.append(gramian) or gramian.new_ones(T),
            scope="trunk",
        )
        balancer.backward(net(batch()), backward=lambda loss, f=factor: (f * loss).backward())
        results.append(seen[0])
    assert_close(*results)


def test_a_copy_of_both_goes_on_and_a_copy_of_the_model_is_free() -> None:
    net = Net()
    balancer = MGDA(net, scope=["mlp.0"]).double()
    for pair in (copy.deepcopy((net, balancer)), pickle.loads(pickle.dumps((net, balancer)))):
        model, twin = pair
        assert model.shared.scope == (model.mlp[0],)
        twin.backward(model(batch()))
        net.zero_grad()
        balancer.backward(net(batch()))
        assert twin.weights.equal(balancer.weights)
    assert copy.deepcopy(net).shared.scope == "layer"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda net: MGDA(net, scope="mlp"), r"scope: .*'mlp'; for that module alone, \['mlp'\]"),
        (
            lambda net: MGDA(net, scope=["head"]),
            "scope: expected a module of the model, got 'head'",
        ),
        (lambda net: GradNorm(net, balance_at="first", scope="trunk"), 'scope: expected "layer"'),
        (
            lambda net: (GradNorm(net), GradNorm(net, scope="trunk")),
            "scope: GradNorm looks at the same layer in another scope",
        ),
    ],
)
def test_wrong_scopes(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(Net())
