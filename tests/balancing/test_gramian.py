"""GramianBalancer: the weights of a function of the Gramian, at the shared layer and before it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from fastmtl.balancing import GramianBalancer
from tests.balancing.networks import F64, Net, T, batch
from tests.tolerances import assert_close


def softmin(gramian: Tensor) -> Tensor:
    return torch.softmax(-gramian.sum(1), 0)


@pytest.mark.parametrize("trunk", ["mlp", "gru"])
def test_gradients(trunk: str) -> None:
    net, x = Net(trunk), batch(trunk)
    plain = copy.deepcopy(net)
    losses = plain(x)
    grads = torch.stack(
        [
            torch.autograd.grad(loss, plain.shared.weight, retain_graph=True)[0].flatten()
            for loss in losses
        ]
    )
    weights = softmin(grads @ grads.T)
    balancer = GramianBalancer(net, softmin).double()
    total = balancer.backward(net(x))
    assert_close(total, losses.sum())
    assert_close(balancer.weights, weights)
    heads = ("first", "last")
    for (name, parameter), twin in zip(net.named_parameters(), plain.parameters(), strict=True):
        combined = losses.sum() if name.startswith(heads) else (weights * losses).sum()
        (grad,) = torch.autograd.grad(combined, twin, retain_graph=True)
        assert_close(parameter.grad, grad)


@pytest.mark.parametrize("inferred", [True, False])
def test_absent_tasks(inferred: bool) -> None:
    seen = []

    def weighting(gramian: Tensor) -> Tensor:
        seen.append(gramian)
        return torch.full((T,), 2.0, dtype=F64)

    net, x = Net(), batch()
    balancer = GramianBalancer(net, weighting).double()
    present = torch.tensor([True, False, True, True])
    if inferred:
        balancer.backward(net(x) * present)
    else:
        balancer.backward(net(x), present=present)
    assert seen[0][1].eq(0).all()
    assert seen[0][:, 1].eq(0).all()
    assert balancer.weights.tolist() == [2.0, 1.0, 2.0, 2.0]
    assert net.last.weight.grad[1].eq(0).all()


def test_a_weighting_with_state_is_saved() -> None:
    class Learned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.ones(T))

        def forward(self, gramian: Tensor) -> Tensor:
            return self.scale

    net = Net()
    balancer = GramianBalancer(net, Learned()).double()
    balancer.backward(net(batch()))
    assert "weighting.scale" in balancer.state_dict()
    assert "weighting.scale" not in "".join(net.state_dict())


def test_arguments_are_checked() -> None:
    with pytest.raises(TypeError, match="weighting: expected a callable, got int"):
        GramianBalancer(Net(), 3)
    with pytest.raises(ValueError, match="model: a Gramian is taken at a SharedLinear or TaskFork"):
        GramianBalancer(Net(), softmin, balance_at="last")
    net = Net()
    balancer = GramianBalancer(net, lambda gramian: gramian[0, :2]).double()
    with pytest.raises(ValueError, match=r"weighting: expected weights \(num_tasks,\) = \(4,\)"):
        balancer.backward(net(batch()))
