"""Tools that look for linear layers find a SharedLinear, and what they put around it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fastmtl.balancing import MGDA, GradNorm
from fastmtl.nn import SharedLinear, TaskFork
from tests.tolerances import assert_close

D, H, T = 6, 4, 3
F64 = torch.float64


class LoRA(nn.Module):
    """A frozen linear layer and a trained product of low rank beside it (Hu et al. 2022)."""

    def __init__(self, base: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        dtype = base.weight.dtype
        self.down = nn.Linear(base.in_features, rank, bias=False, dtype=dtype)
        self.up = nn.Linear(rank, base.out_features, bias=False, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.base(x) + self.up(self.down(x))
        return output


class Net(nn.Module):
    def __init__(self, fork: bool = False) -> None:
        super().__init__()
        self.trunk = nn.Linear(D, D)
        self.shared = nn.Linear(D, H) if fork else SharedLinear(D, H, T)
        self.fork = TaskFork(T) if fork else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        views = self.fork(self.shared(self.trunk(x).tanh()))
        scale = torch.arange(1.0, T + 1, dtype=x.dtype).view(T, 1, 1)
        return (views.tanh() * scale).square().mean((1, 2))


def adapted(fork: bool = False) -> Net:
    torch.manual_seed(0)
    net = Net(fork).double()
    for name, module in list(net.named_children()):
        if isinstance(module, nn.Linear) and name == "shared":
            setattr(net, name, LoRA(module))
    return net


def test_it_is_a_linear_layer() -> None:
    layer = SharedLinear(D, H, T)
    assert isinstance(layer, nn.Linear)
    torch.manual_seed(0)
    layer.reset_parameters()
    torch.manual_seed(0)
    twin = nn.Linear(D, H)
    assert layer.state_dict().keys() == twin.state_dict().keys()
    assert all(torch.equal(layer.state_dict()[k], v) for k, v in twin.state_dict().items())
    assert repr(layer) == "SharedLinear(in_features=6, out_features=4, num_tasks=3, bias=True)"


def test_norms_under_an_adapter() -> None:
    """They are those of the frozen weight: what the adapter stands for."""
    net = adapted()
    assert isinstance(net.shared, LoRA)
    balancer = GradNorm(net)
    x = torch.randn(5, D, dtype=F64)
    w = net.shared.base.weight.detach().clone().requires_grad_()
    hidden = net.trunk(x).tanh().detach()
    bias, delta = net.shared.base.bias, net.shared.up(net.shared.down(hidden)).detach()
    views = (nn.functional.linear(hidden, w, bias) + delta).tanh()
    losses = torch.stack([((j + 1) * views).square().mean() for j in range(T)])
    expected = [torch.autograd.grad(loss, w, retain_graph=True)[0].norm() for loss in losses]
    balancer.backward(net(x))
    assert_close(net.shared.base.task_grad_norms(), torch.stack(expected))
    assert net.shared.up.weight.grad is not None
    assert net.trunk.weight.grad is not None


def test_combined_gradients_under_an_adapter_are_refused() -> None:
    net = adapted()
    balancer = MGDA(net)
    with pytest.raises(RuntimeError, match="its weight is frozen, as under LoRA"):
        balancer.backward(net(torch.randn(5, D, dtype=F64)))
    with torch.no_grad():
        net(torch.randn(5, D, dtype=F64))


def test_a_fork_behind_an_adapter_combines_all() -> None:
    net = adapted(fork=True)
    balancer = MGDA(net)
    x = torch.randn(5, D, dtype=F64)
    balancer.backward(net(x))
    grads = [p.grad for p in net.parameters() if p.grad is not None]
    net.zero_grad()
    net.fork.weighting = None
    (balancer.weights.double() * net(x)).sum().backward()
    found = [p.grad for p in net.parameters() if p.grad is not None]
    for actual, wanted in zip(grads, found, strict=True):
        assert_close(actual, wanted, dtype=torch.float32)
