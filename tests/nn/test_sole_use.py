"""A watched layer's weight that is used elsewhere too."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fastmtl.balancing import MGDA, GradNorm
from fastmtl.nn import SharedLinear, TaskFork
from tests.tolerances import assert_close

T, D = 3, 4
F64 = torch.float64
OUTSIDE = "SharedLinear: its weight has a gradient from outside the layer"


@pytest.fixture
def layer() -> SharedLinear:
    torch.manual_seed(0)
    return SharedLinear(D, D, T).double()


def batch() -> Tensor:
    return torch.arange(5.0 * D, dtype=F64).view(5, D).sin()


def losses(views: Tensor) -> Tensor:
    return torch.stack([(j + 1) * view.square().mean() for j, view in enumerate(views)])


def by_function(layer: SharedLinear, x: Tensor) -> Tensor:
    return losses(layer(F.linear(x, layer.weight).tanh()))


def tied(layer: SharedLinear, x: Tensor) -> Tensor:
    before = nn.Linear(D, D).double()
    before.weight = layer.weight
    return losses(layer(before(x).tanh()))


def tied_after(layer: SharedLinear, x: Tensor) -> Tensor:
    return losses(F.linear(layer(x).tanh(), layer.weight))


def tied_layers(layer: SharedLinear, x: Tensor) -> Tensor:
    other = SharedLinear(D, D, T).double()
    other.weight = layer.weight
    other.watch = "norms"
    return losses(other(x)) + losses(layer(x))


def penalty(layer: SharedLinear, x: Tensor) -> Tensor:
    return losses(layer(x)) + layer.weight.square().sum()


def used_twice(layer: SharedLinear, x: Tensor) -> Tensor:
    return losses(layer(x)) + losses(layer(x[:2])) + layer.weight.square().sum()


def compiled(layer: SharedLinear, x: Tensor) -> Tensor:
    return torch.compile(by_function, backend="aot_eager", fullgraph=True)(layer, x)


def compiled_around(layer: SharedLinear, x: Tensor) -> Tensor:
    whole = torch.compile(layer, backend="aot_eager", fullgraph=True)
    return losses(whole(F.linear(x, layer.weight).tanh()))


def autocast(layer: SharedLinear, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return by_function(layer.float(), x.float()).double()


def recomputed(layer: SharedLinear, x: Tensor) -> Tensor:
    return checkpoint(by_function, layer, x, use_reentrant=False)


def recomputed_reentrant(layer: SharedLinear, x: Tensor) -> Tensor:
    return checkpoint(by_function, layer, x.requires_grad_(), use_reentrant=True)


Use = Callable[[SharedLinear, Tensor], Tensor]
ELSEWHERE: list[Use] = [
    by_function,
    tied,
    tied_after,
    tied_layers,
    penalty,
    used_twice,
    compiled,
    compiled_around,
    autocast,
    recomputed,
    recomputed_reentrant,
]


@pytest.mark.parametrize("watch", ["norms", "gramian"])
@pytest.mark.parametrize("use", ELSEWHERE)
def test_another_use_is_refused(layer: SharedLinear, use: Use, watch: str) -> None:
    layer.watch = watch
    with pytest.raises(RuntimeError, match=OUTSIDE):
        use(layer, batch()).sum().backward()


@pytest.mark.parametrize("method", [GradNorm, MGDA])
def test_another_use_is_refused_by_balancers(
    layer: SharedLinear, method: type[GradNorm] | type[MGDA]
) -> None:
    balancer = method(layer).double()
    with pytest.raises(RuntimeError, match=OUTSIDE):
        balancer.backward(tied(layer, batch()))
    balancer.backward(losses(layer(batch())))


def test_unwatched_the_weight_can_be_used_anywhere(layer: SharedLinear) -> None:
    for use in ELSEWHERE[:3]:
        use(layer, batch()).sum().backward()


def test_uses_without_a_gradient_are_none(layer: SharedLinear) -> None:
    layer.watch = "norms"
    layer(F.linear(batch(), layer.weight.detach())).sum().backward()
    expected = layer.task_grad_norms()
    layer(F.linear(batch(), layer.weight.detach())).sum().backward()
    assert_close(layer.task_grad_norms(), expected)


def test_a_penalty_in_a_pass_of_its_own(layer: SharedLinear) -> None:
    layer.watch = "norms"
    loss, square = losses(layer(batch())).sum(), layer.weight.square().sum()
    loss.backward()
    square.backward()
    loss = losses(layer(batch())).sum()
    layer.weight.square().sum().backward()
    loss.backward()


def test_a_fork_takes_any_weight(layer: SharedLinear) -> None:
    fork = TaskFork(T)
    balancer = GradNorm(fork).double()
    balancer.backward(losses(fork(F.linear(F.linear(batch(), layer.weight), layer.weight))))


@pytest.mark.parametrize("when", ["before", "after"])
def test_hooks_that_replace_the_gradient(layer: SharedLinear, when: str) -> None:
    layer.watch = "norms"
    if when == "after":
        layer(batch()).sum().backward()
        layer.weight.grad = None
    layer.weight.register_hook(lambda grad: 2 * grad)
    layer(batch()).sum().backward()
    twin = nn.Linear(D, D).double()
    twin.load_state_dict(layer.state_dict())
    (T * twin(batch()).sum()).backward()
    assert_close(layer.weight.grad, 2 * twin.weight.grad)


def test_weights_put_into_the_same_parameter(layer: SharedLinear) -> None:
    """Neither a version nor the tensor changes, and the layer must not use the old values."""
    layer.watch = "norms"
    layer(batch())  # a use without a backward pass
    layer.weight.data = torch.zeros(D, D, dtype=F64)
    assert_close(layer(batch())[0], layer.bias.expand(5, D))


def test_two_graphs_through_one_weight(layer: SharedLinear) -> None:
    layer.watch = "norms"
    first, second = losses(layer(batch())).sum(), losses(layer(batch())).sum()
    first.backward(retain_graph=True)
    second.backward()
    first.backward()


def test_copies_watch_their_own_weight(layer: SharedLinear) -> None:
    layer.watch = "norms"
    loss = losses(layer(batch())).sum()
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        losses(copied(batch())).sum().backward()
        with pytest.raises(RuntimeError, match=OUTSIDE):
            tied(copied, batch()).sum().backward()
    loss.backward()
