"""Training loops as people write them: checkpointing, compilation, accumulation under a scaler."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fastmtl.balancing import DBMTL, MGDA, Balancer, GradNorm
from tests.balancing.networks import Net, batch
from tests.balancing.test_base import GRADIENT_BASED, LOSS_ONLY, make
from tests.tolerances import assert_close

gradient_based = pytest.mark.parametrize("method", GRADIENT_BASED)
Losses = Callable[[Net, Tensor], Tensor]


def train(method: type[Balancer], losses: Losses, steps: int = 3) -> tuple[Tensor, Tensor]:
    """The balancer's weights and the gradient of the first layer after some steps."""
    torch.manual_seed(0)
    net = Net()
    balancer = make(method, net)
    for seed in range(steps):
        net.zero_grad()
        balancer.backward(losses(net, batch(seed=seed).requires_grad_()))
    grad = next(net.parameters()).grad
    assert grad is not None
    return balancer.weights, grad


@gradient_based
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing(method: type[Balancer], reentrant: bool) -> None:
    expected = train(method, lambda net, x: net(x))
    keep = partial(checkpoint, use_reentrant=reentrant)
    for actual, wanted in zip(train(method, lambda net, x: keep(net, x)), expected, strict=True):
        assert_close(actual, wanted)


@gradient_based
def test_compiled(method: type[Balancer]) -> None:
    compiled: dict[int, Any] = {}

    def losses(net: Net, x: Tensor) -> Tensor:
        step = compiled.setdefault(id(net), torch.compile(net, backend="aot_eager", fullgraph=True))
        result: Tensor = step(x)
        return result

    expected = train(method, lambda net, x: net(x), steps=2)
    for actual, wanted in zip(train(method, losses, steps=2), expected, strict=True):
        assert_close(actual, wanted)


@pytest.mark.skipif(
    not hasattr(torch._dynamo.config, "trace_autograd_ops"),
    reason="this torch.compile follows no backward pass",
)
@pytest.mark.parametrize("method", LOSS_ONLY)
def test_a_step_compiled_as_one_graph(method: type[Balancer]) -> None:
    def train(*, compiled: bool) -> list[Tensor]:
        torch.manual_seed(0)
        net = Net()
        balancer = make(method, net)

        def step(x: Tensor) -> Tensor:
            return balancer.backward(net(x))

        run = torch.compile(step, backend="aot_eager", fullgraph=True) if compiled else step
        torch.manual_seed(1)
        totals = [run(batch(seed=seed)) for seed in range(2)]
        grads = (p.grad for p in net.parameters() if p.grad is not None)
        return [*totals, balancer.weights, *grads]

    expected = train(compiled=False)
    torch.compiler.reset()
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        found = train(compiled=True)
    for actual, wanted in zip(found, expected, strict=True):
        assert_close(actual, wanted)


@gradient_based
def test_losses_kept_for_a_log(method: type[Balancer]) -> None:
    """Graphs of earlier steps that live on change nothing."""
    log = []

    def losses(net: Net, x: Tensor) -> Tensor:
        log.append(net(x))
        return log[-1]

    expected = train(method, lambda net, x: net(x))
    for actual, wanted in zip(train(method, losses), expected, strict=True):
        assert_close(actual, wanted)


@gradient_based
@pytest.mark.parametrize("factor", [0.25, 1.0, 1024.0])
def test_a_pass_that_somebody_else_runs(method: type[Balancer], factor: float) -> None:
    """As trainers do, which scale for float16 and divide by the batches they accumulate."""

    def train(**options: Any) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        net = Net()
        balancer = make(method, net)
        for seed in range(3):
            net.zero_grad()
            balancer.backward(net(batch(seed=seed)), **options)
        grad = next(net.parameters()).grad
        assert grad is not None
        return balancer.weights, grad

    weights, grad = train()
    scaled_weights, scaled_grad = train(backward=lambda total: (factor * total).backward())
    assert_close(scaled_weights, weights)
    assert_close(scaled_grad / factor, grad)


def test_a_pass_that_nobody_runs() -> None:
    net = Net()
    balancer = GradNorm(net)
    before = balancer.weights.clone()
    with pytest.raises(RuntimeError, match="expected a callable that runs the backward pass"):
        balancer.backward(net(batch()), backward=lambda total: None)
    assert balancer.weights.equal(before)
    scaler = torch.amp.GradScaler("cpu")
    with pytest.raises(ValueError, match="scaler: expected None beside backward"):
        balancer.backward(net(batch()), backward=Tensor.backward, scaler=scaler)


@gradient_based
def test_accumulation_under_a_scaler(method: type[Balancer]) -> None:
    """One batch of an accumulation overflows: the others count, and no NaN reaches the weights."""
    net = Net().float()
    balancer = make(method, net).float()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    for step in range(4):
        # The logarithm of a loss of 1e36 is as good as any.
        large = torch.inf if method is DBMTL else 1e36
        factor = large if step == 1 else 1.0
        balancer.backward(net(batch(seed=step).float()) * factor, scaler=scaler)
        if step % 2:
            before = net.shared.weight.detach().clone()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            assert torch.equal(net.shared.weight, before) == (step == 1)
    assert balancer.weights.isfinite().all()
    assert scaler.get_scale() == 2.0**15


def test_a_weighted_layer_is_not_balanced_twice() -> None:
    net = Net()
    MGDA(net)
    with pytest.raises(ValueError, match=r"set layer\.weighting = None"):
        GradNorm(net)
    net.shared.weighting = None
    GradNorm(net)
