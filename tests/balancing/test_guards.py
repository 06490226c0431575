"""What would be wrong in silence, and is refused: other weights, other balancers, copies."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from fastmtl.balancing import MGDA, GradNorm, GramianBalancer, PCGrad, TaskDynamicBalancing
from fastmtl.nn import SharedLinear, TaskFork, TaskLinear
from tests.balancing.networks import Net, T, batch
from tests.balancing.test_base import GRADIENT_BASED, make


@pytest.mark.parametrize("copied", [False, True])
def test_a_shared_weight_is_no_weight_of_each_task(copied: bool) -> None:
    layer = SharedLinear(8, T, T)
    layer = copy.deepcopy(layer) if copied else layer
    for given in (layer.weight, [layer.weight] * T):
        with pytest.raises(ValueError, match=r"model: .* got the weight of a SharedLinear, which"):
            GradNorm(given)
    assert GradNorm(TaskLinear(3, 1, T).weight).num_tasks == T
    assert GradNorm(nn.Parameter(torch.ones(T, 3))).num_tasks == T


COMBINES = r"model: its shared layer combines gradients by a weighting"


@pytest.mark.parametrize("first", [MGDA, PCGrad])
def test_no_second_balancer_at_a_layer_that_combines_gradients(first: type[MGDA]) -> None:
    net = Net()
    first(net)
    for second in (MGDA, PCGrad, GradNorm):
        with pytest.raises(ValueError, match=COMBINES):
            second(net)
    net.shared.weighting = None
    GradNorm(net)


def test_none_that_combines_gradients_where_another_looks_at_them() -> None:
    net = Net()
    first = GradNorm(net)
    second = TaskDynamicBalancing(net, [1] * T, 5)
    with pytest.raises(ValueError, match="model: GradNorm and TaskDynamicBalancing weighs losses"):
        MGDA(net)
    del first, second
    MGDA(net)


@pytest.mark.parametrize("method", GRADIENT_BASED)
def test_a_copied_model_is_watched_by_nobody(method: type[GramianBalancer]) -> None:
    net = Net()
    balancer = make(method, net)
    balancer.backward(net(batch()))
    before = balancer.weights.clone()
    twin = copy.deepcopy(net)
    assert twin.shared.watch is None
    assert twin.shared.weighting is None
    losses = twin(batch(seed=1))
    expected = torch.autograd.grad(losses.sum(), twin.shared.weight)[0]
    twin(batch(seed=1)).sum().backward()
    torch.testing.assert_close(twin.shared.weight.grad, expected)
    assert balancer.weights.equal(before)
    make(method, twin)


@pytest.mark.parametrize("model_first", [True, False])
@pytest.mark.parametrize("method", [GradNorm, PCGrad])
def test_a_balancer_copied_with_its_model_goes_on(
    method: type[GramianBalancer], model_first: bool
) -> None:
    net = Net()
    balancer = make(method, net)
    balancer.backward(net(batch()))
    net.zero_grad()
    pair = (net, balancer) if model_first else (balancer, net)
    copies = [copy.deepcopy(pair), pickle.loads(pickle.dumps(pair))]
    results = []
    for each in (pair, *copies):
        model, twin = each if model_first else each[::-1]
        torch.manual_seed(0)
        twin.backward(model(batch(seed=1)))
        results.append((twin.weights, model.shared.weight.grad))
    for weights, grad in results[1:]:
        assert weights.equal(results[0][0])
        assert grad.equal(results[0][1])


def test_what_a_user_watches_is_watched_in_a_copy() -> None:
    fork = TaskFork(T)
    fork.watch = "gramian"
    GradNorm(fork)
    assert copy.deepcopy(fork).watch == "gramian"


REFUSED = {
    "ExcessMTLWeighting": {},
    "SDMGradWeighting": {},
    "MoDoWeighting": {},
    "UPGrad": {},
}


@pytest.mark.parametrize("name", REFUSED)
def test_torchjds_that_need_more_than_the_gramian_are_refused(name: str) -> None:
    aggregation = pytest.importorskip("torchjd.aggregation", reason="TorchJD is not installed")
    weighting = getattr(aggregation, name)(**REFUSED[name])
    with pytest.raises(TypeError, match=f"weighting: .* got TorchJD's {name}, which "):
        GramianBalancer(Net(), weighting)
