"""Watched layers in graphs that torch.compile makes of all of a network."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from fastmtl.balancing import MGDA, GradNorm
from fastmtl.nn import SharedLinear, TaskFork
from tests.tolerances import assert_close

D, H, T = 6, 4, 3
F64 = torch.float64


class Net(nn.Module):
    """A trunk, a shared layer, a fork where there is one, and the tasks' losses."""

    def __init__(self, fork: bool = False) -> None:
        super().__init__()
        self.trunk = nn.Linear(D, D)
        self.shared = SharedLinear(D, H, T)
        self.fork = TaskFork(T) if fork else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.trunk(x).tanh()
        y = self.shared(x) if self.fork is None else self.fork(self.shared(x)[0])
        scale = torch.arange(1.0, T + 1, dtype=x.dtype, device=x.device)
        return (y.tanh() * scale.view(T, *(1,) * x.dim())).square().flatten(1).mean(1)


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch.compiler.reset()


def net_of(fork: bool = False, dtype: torch.dtype = F64) -> tuple[Net, Any]:
    torch.manual_seed(0)
    net = Net(fork).to(dtype)
    return net, net.fork if fork else net.shared


def batch(*shape: int, dtype: torch.dtype = F64) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(*shape, D, dtype=dtype)


def whole(net: Callable[..., Any], backend: Any = "aot_eager", **options: Any) -> Any:
    return torch.compile(net, backend=backend, fullgraph=True, **options)


def results(net: Net, layer: Any, call: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    """What a backward pass through `call` gives: measures, and the gradients of all parameters."""
    net.zero_grad()
    call(x).sum().backward()
    measured = [layer.task_grad_norms()] if layer.watch is not None else []
    if layer.watch == "gramian" or layer.weighting is not None:
        measured.append(layer._gramian)
    return [*measured, *(p.grad for p in net.parameters() if p.grad is not None)]


@pytest.mark.parametrize("fork", [False, True])
@pytest.mark.parametrize("shape", [(5,), (2, 7)])
@pytest.mark.parametrize("watch", ["norms", "gramian"])
def test_what_is_watched(watch: str, shape: tuple[int, ...], fork: bool) -> None:
    net, layer = net_of(fork)
    layer.watch = watch
    x = batch(*shape)
    expected = results(net, layer, net, x)
    compiled = whole(net)
    for _ in range(2):  # and nothing adds up over passes
        for actual, wanted in zip(results(net, layer, compiled, x), expected, strict=True):
            assert_close(actual, wanted)


@pytest.mark.parametrize("fork", [False, True])
def test_what_is_weighed(fork: bool) -> None:
    net, layer = net_of(fork)
    layer.weighting = lambda gramian: gramian.diagonal().rsqrt()
    expected = results(net, layer, net, batch(5))
    for actual, wanted in zip(results(net, layer, whole(net), batch(5)), expected, strict=True):
        assert_close(actual, wanted)


def test_half_precision() -> None:
    net, layer = net_of(dtype=torch.float32)
    layer.watch = "norms"
    x = batch(9, dtype=torch.float32)
    compiled = whole(net)

    def under(call: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def losses(x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return call(x).float()

        return losses

    expected = results(net, layer, under(net), x)[0]
    actual = results(net, layer, under(compiled), x)[0]
    assert actual.dtype == torch.float32
    assert_close(actual, expected, dtype=torch.bfloat16)


@pytest.mark.parametrize("fork", [False, True])
@pytest.mark.parametrize("how", ["one graph", "two graphs", "both"])
def test_a_layer_used_twice_is_refused(fork: bool, how: str) -> None:
    net, layer = net_of(fork)
    layer.watch = "norms"
    compiled = whole(net)

    def twice(x: Tensor) -> Tensor:
        return net(x) + net(2 * x)

    x = batch(5)
    losses = {
        "one graph": lambda: whole(twice)(x),
        "two graphs": lambda: compiled(x) + compiled(2 * x),
        "both": lambda: compiled(x) + net(x),
    }[how]()
    # What is missing of the weight's gradient may be seen first.
    told = "used several times in one backward pass"
    told += "|gradient from outside the layer" if how == "both" else ""
    with pytest.raises(RuntimeError, match=told):
        losses.sum().backward()
    compiled(x).sum().backward()


def test_a_weighted_layer_used_twice_is_refused() -> None:
    net, layer = net_of()
    layer.weighting = lambda gramian: gramian.diagonal()
    compiled = whole(net)
    losses = compiled(batch(5)) + compiled(batch(5))
    with pytest.raises(RuntimeError, match="with a weighting it can be used once"):
        losses.sum().backward()


@pytest.mark.parametrize("make", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_measure_their_own(make: Callable[[Net], Net]) -> None:
    net, layer = net_of()
    layer.watch = "norms"
    other = make(net)
    expected = results(net, layer, net, batch(5))
    layer.forget()
    for actual, wanted in zip(
        results(other, other.shared, whole(other), batch(5)), expected, strict=True
    ):
        assert_close(actual, wanted)
    with pytest.raises(RuntimeError, match="no backward pass went through it"):
        layer.task_grad_norms()


@pytest.mark.parametrize("method", [GradNorm, MGDA])
def test_a_model_moved_after_its_balancer_was_made(method: Any) -> None:
    def train(compiled: bool) -> Tensor:
        net, _ = net_of(dtype=torch.float32)
        balancer = method(net)
        net.double()
        net.shared.weight = nn.Parameter(net.shared.weight.detach().clone())
        step = whole(net) if compiled else net
        for _ in range(3):
            net.zero_grad()
            balancer.backward(step(batch(5)))
        return torch.cat([balancer.weights.double(), net.trunk.weight.grad.flatten()])

    assert_close(train(True), train(False))


@pytest.mark.parametrize("method", [GradNorm, MGDA])
def test_batches_of_any_size_are_one_graph(method: Any) -> None:
    """Besides those of the first two sizes, by which the compiler learns that they vary."""
    net, _ = net_of()
    balancer = method(net)
    counter = CompileCounterWithBackend("aot_eager")
    step = whole(net, counter)
    for size in (5, 7, 9, 12, 31, 4, 8):
        balancer.backward(step(batch(size, size + 2)))
    assert counter.frame_count == 2


def test_batches_that_are_marked_are_one_graph() -> None:
    net, _ = net_of()
    balancer = GradNorm(net)
    counter = CompileCounterWithBackend("aot_eager")
    step = whole(net, counter)
    for size in (5, 7, 9, 12):
        x = batch(size)
        torch._dynamo.mark_dynamic(x, 0)
        balancer.backward(step(x))
    assert counter.frame_count == 1


@pytest.mark.parametrize("method", [GradNorm, MGDA])
def test_a_compiled_step_is_one_graph_up_to_the_balancer(method: Any) -> None:
    net, _ = net_of()
    balancer = method(net)

    def step(x: Tensor) -> Tensor:
        total: Tensor = balancer.backward(net(x))
        return total

    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(step, backend=counter)
    for _ in range(3):
        compiled(batch(5))
    assert counter.frame_count == 1
    with pytest.raises(torch._dynamo.exc.Unsupported):
        whole(step)(batch(5))


@pytest.mark.slow
def test_inductor() -> None:
    net, layer = net_of()
    layer.watch = "gramian"
    expected = results(net, layer, net, batch(5))
    compiled = whole(net, "inductor")
    for actual, wanted in zip(results(net, layer, compiled, batch(5)), expected, strict=True):
        assert_close(actual, wanted)
    MGDA(net)
    net.shared.watch = None
    expected = results(net, layer, net, batch(5))
    compiled = whole(net, "inductor")
    for actual, wanted in zip(results(net, layer, compiled, batch(5)), expected, strict=True):
        assert_close(actual, wanted)
