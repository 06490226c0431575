"""Every way to name the weight that gradient norms are taken at."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from fastmtl.balancing import (
    MGDA,
    DynamicMultiTask,
    GradNorm,
    GramianBalancer,
    TaskDynamicBalancing,
)
from fastmtl.balancing.backward_pass import BackwardPass
from fastmtl.balancing.target import ForkTarget, ParameterTarget, resolve
from fastmtl.models import HGFN, MTMLAN
from fastmtl.nn import SharedLinear, TaskFork
from tests.balancing.networks import F64, Net, T, batch, stacked_task_norms, task_norms
from tests.tolerances import assert_close


def test_what_is_resolved_to_what() -> None:
    net = Net()
    assert resolve(net, None).layer is net.shared
    assert resolve(net, "shared").layer is net.shared
    assert resolve(net, "first").parameters[0] is net.first.weight
    assert resolve(net, "last").parameters[0] is net.last.weight
    assert resolve(net.shared, None).layer is net.shared
    assert resolve(nn.Sequential(nn.Linear(2, 8), net.shared), None).layer is net.shared
    assert resolve(net.first.weight, None).num_tasks == T
    for parameters in (
        [nn.Parameter(torch.zeros(3)) for _ in range(5)],
        nn.ParameterList([torch.zeros(3)] * 5),
    ):
        target = resolve(parameters, None)
        assert isinstance(target, ParameterTarget)
        assert target.num_tasks == 5
    fork = TaskFork(3)
    target = resolve(fork, None)
    assert isinstance(target, ForkTarget)
    assert target.num_tasks == 3
    assert target.device is None


def test_a_model_without_shared_layer_is_balanced_at_its_first_layer() -> None:
    model = MTMLAN(6, T, hidden_size=3, num_layers=1, attention_size=2)
    assert resolve(model, None).parameters[0] is model.task_weight("first")
    with pytest.raises(ValueError, match="balance_at: "):
        resolve(model, "shared")
    model = MTMLAN(6, T, hidden_size=3, num_layers=1, attention_size=2, shared_features=4)
    assert resolve(model, None).layer is model.task_weight("shared")


@pytest.mark.parametrize("balance_at", ["shared", "first", "last"])
def test_norms_in_the_ready_models(balance_at: str) -> None:
    mtmlan = MTMLAN(6, T, hidden_size=3, num_layers=1, attention_size=2, shared_features=4)
    hgfn = HGFN({"audio": 5, "text": 3}, T, hidden_size=8)
    inputs = {"audio": torch.randn(7, 5, dtype=F64), "text": torch.randn(7, 3, dtype=F64)}
    for model, x in ((mtmlan, batch("gru")), (hgfn, inputs)):
        model.double().eval()
        losses = (model(x) - 1).square().mean(0)
        weight = model.task_weight(balance_at)
        if balance_at == "shared":
            expected = task_norms(losses, torch.ones(T), weight.weight, create_graph=False)
        else:
            expected = stacked_task_norms(losses, torch.ones(T), weight, create_graph=False)
        target = resolve(model, balance_at)
        assert_close(target.norms_of(BackwardPass((model(x) - 1).square().mean(0).sum())), expected)


@pytest.mark.parametrize(
    "build",
    [
        lambda net: GradNorm(net, where="last"),
        lambda net: TaskDynamicBalancing(net, [1] * T, 9, where="last"),
        lambda net: DynamicMultiTask(net, [1] * T, 9, where="last"),
    ],
)
def test_the_old_name_of_the_place_warns(build) -> None:
    net = Net()
    with pytest.warns(DeprecationWarning, match=r"^\w+: where given as in an older") as caught:
        balancer = build(net)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert str(caught[0].message).startswith(f"{type(balancer).__name__}: ")
    assert balancer._target.parameters[0] is net.last.weight


@pytest.mark.parametrize("build", [MGDA, lambda net, **at: GramianBalancer(net, sum, **at)])
def test_the_old_name_of_the_place_warns_at_a_gramian(build) -> None:
    with pytest.warns(DeprecationWarning, match=r"^\w+: where given as in an older") as caught:
        build(Net(), where="shared")
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_a_watched_gramian_is_left_watched() -> None:
    layer = SharedLinear(2, 3, T)
    layer.watch = "gramian"
    resolve(layer, None)
    assert layer.watch == "gramian"


@pytest.mark.parametrize("accumulated", [False, True])
def test_norms_are_those_of_this_backward_alone(accumulated: bool) -> None:
    net, x = Net(), batch()
    expected = stacked_task_norms(net(x), torch.ones(T, dtype=F64), net.last.weight)
    if accumulated:
        net(batch(seed=1)).sum().backward()
    target = resolve(net, "last")
    assert_close(target.norms_of(BackwardPass(net(x).sum())), expected)
    assert not net.last.weight._backward_hooks


def test_parameters_without_gradient_have_norm_zero() -> None:
    parameters = [nn.Parameter(torch.ones(2)) for _ in range(3)]
    norms = resolve(parameters, None).norms_of(BackwardPass(parameters[1].sum() * 2))
    assert_close(norms, torch.tensor([0.0, 8.0**0.5, 0.0]).double())


def test_losses_that_do_not_depend_on_the_target_raise() -> None:
    loss = nn.Parameter(torch.ones(2)).sum()
    with pytest.raises(RuntimeError, match="do not depend on the parameters of the balancer"):
        resolve([nn.Parameter(torch.ones(2))], None).norms_of(BackwardPass(loss * 1))
    layer = SharedLinear(2, 3, 1)
    target = resolve(layer, None)
    target.norms_of(BackwardPass(layer(torch.ones(1, 2)).sum()))
    with pytest.raises(RuntimeError, match="no backward pass went through it"):
        target.norms_of(BackwardPass(nn.Parameter(torch.ones(2)).sum()))


def test_gradients_in_parts_raise() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    x = torch.ones(2, requires_grad=True)

    def use(x: torch.Tensor) -> torch.Tensor:
        return checkpoint(lambda x: (weight * x).sum(), x, use_reentrant=True)

    target = resolve(weight, None)
    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        target.norms_of(BackwardPass(use(x) + use(x)))
    assert not weight._backward_hooks


def test_through_torch_compile() -> None:
    net, x = Net(), batch()
    balancer, compiled = GradNorm(net).double(), GradNorm(net).double()
    step = torch.compile(net, backend="aot_eager")
    for _ in range(2):
        balancer.backward(net(x))
        compiled.backward(step(x))
    assert_close(compiled.weights, balancer.weights)


@pytest.mark.parametrize(
    ("model", "balance_at", "error", "message"),
    [
        (Net(), "middle", ValueError, "balance_at: expected one of shared, first, last, got"),
        (SharedLinear(2, 3, T), "first", ValueError, "balance_at: 'first' needs a model with"),
        (
            nn.Parameter(torch.ones(2, 2)),
            "shared",
            ValueError,
            "balance_at: 'shared' needs a model",
        ),
        (nn.Linear(2, 2), None, ValueError, "model: expected one SharedLinear .* with 0 of them"),
        (nn.ModuleList([TaskFork(2), TaskFork(2)]), None, ValueError, "with 2 of them"),
        (nn.Parameter(torch.ones(2)), None, ValueError, r"model: expected .* got shape \(2,\)"),
        (3, None, TypeError, "model: expected a model with a task_weight method"),
        ([], None, TypeError, "model: expected"),
        ([torch.ones(2)], None, TypeError, "model: expected"),
    ],
)
def test_arguments_are_checked(
    model: object, balance_at: str | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        resolve(model, balance_at)
