"""GradNorm's closed form against its double backward, and the properties of the weights."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fastmtl.balancing import GradNorm
from fastmtl.nn import SharedLinear, TaskFork
from tests.balancing.networks import (
    F64,
    Net,
    T,
    batch,
    differentiable,
    stacked_task_norms,
    step_by_autograd,
    task_norms,
)
from tests.tolerances import assert_close


class Forced(GradNorm):
    """GradNorm of T tasks whose losses and gradient norms are given."""

    def __init__(self, num_tasks: int, **options: object) -> None:
        super().__init__(nn.Parameter(torch.zeros(num_tasks, 1)), **options)
        self.double()

    def step(self, losses: Tensor, norms: Tensor, present: Tensor | None = None) -> Tensor:
        """`norms` are those of dL_j/dW, which the backward pass of sum_j w_j L_j scales by w_j."""
        leaf = losses.clone().requires_grad_()
        passed = norms * self.weights
        self._target = SimpleNamespace(group=None, norms_of=lambda backward: passed)
        self.backward(leaf * 1, present=present)
        return self.weights


@pytest.mark.parametrize("trunk", ["mlp", "gru"])
@pytest.mark.parametrize("balance_at", ["shared", "first", "last"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 1.0, 1.5])
def test_closed_form_is_the_double_backward(
    trunk: str, balance_at: str, normalize: bool, alpha: float
) -> None:
    net = Net(trunk)
    balancer = GradNorm(net, alpha, balance_at=balance_at, normalize=normalize).double()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    initial = net(batch(trunk, 0)).detach()
    weights = torch.ones(T, dtype=F64)
    for seed in range(4):
        losses = differentiable(net, batch(trunk, seed))
        weight = net.task_weight(balance_at)

        def norms_of(weights: Tensor, losses: Tensor = losses, weight: object = weight) -> Tensor:
            if isinstance(weight, SharedLinear):
                return task_norms(losses, weights, weight.weight)
            return stacked_task_norms(losses, weights, weight)

        weights = step_by_autograd(
            weights, losses, initial, norms_of, alpha=alpha, normalize=normalize
        )
        balancer.backward(net(batch(trunk, seed)))
        optimizer.step()
        optimizer.zero_grad()
        assert_close(balancer.weights, weights, scale=10)


def test_at_a_fork() -> None:
    fork, head = TaskFork(T), nn.Linear(3, T).double()
    balancer = GradNorm(fork).double()
    z = torch.randn(5, 3, dtype=F64, requires_grad=True)

    def losses(views: tuple[Tensor, ...]) -> Tensor:
        return torch.stack([(head(view)[:, j] - j).square().mean() for j, view in enumerate(views)])

    plain = losses((z,) * T)
    expected = step_by_autograd(
        torch.ones(T, dtype=F64), plain, plain.detach(), lambda w: task_norms(plain, w, z)
    )
    balancer.backward(losses(fork.views(z)))
    assert_close(balancer.weights, expected)


def test_first_layer_of_one_gru_per_task() -> None:
    """A list of T parameters: the input weights of T separate networks."""
    grus = nn.ModuleList(nn.GRU(6, 3, batch_first=True) for _ in range(T)).double()
    parameters = [gru.weight_ih_l0 for gru in grus]
    balancer = GradNorm(parameters).double()
    x = batch("gru")

    def losses() -> Tensor:
        return torch.stack([(gru(x)[0] - j).square().mean() for j, gru in enumerate(grus)])

    plain = losses()
    expected = step_by_autograd(
        torch.ones(T, dtype=F64), plain, plain.detach(), lambda w: task_norms(plain, w, parameters)
    )
    balancer.backward(losses())
    assert_close(balancer.weights, expected)


# Powers of ten keep losses and norms far apart, where rounding and overflow would show.
magnitudes = st.floats(-6, 6).map(lambda exponent: 10.0**exponent)
positive = st.one_of(st.just(0.0), magnitudes)


@given(
    data=st.data(),
    num_tasks=st.integers(1, 6),
    normalize=st.booleans(),
    alpha=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
)
def test_weights_stay_positive_and_sum_to_t(
    data: st.DataObject, num_tasks: int, normalize: bool, alpha: float
) -> None:
    balancer = Forced(num_tasks, normalize=normalize, alpha=alpha)

    def draw(values: st.SearchStrategy) -> Tensor:
        drawn = data.draw(st.lists(values, min_size=num_tasks, max_size=num_tasks))
        return torch.tensor(drawn)

    for _ in range(5):
        before = balancer.weights.clone()
        losses, norms = draw(positive).double(), draw(positive).double()
        present = data.draw(st.none() | st.just(draw(st.booleans())))
        weights = balancer.step(losses, norms, present)
        assert weights.isfinite().all()
        assert (weights > 0).all()
        assert_close(weights.sum(), torch.tensor(float(num_tasks), dtype=F64))
        absent = ~present if present is not None else (losses == 0) & (norms == 0)
        assert torch.equal(weights[absent], before[absent])


def random_run(steps: int = 5, num_tasks: int = T) -> list[tuple[Tensor, Tensor]]:
    return [
        (torch.rand(num_tasks, dtype=F64) + 0.1, torch.rand(num_tasks, dtype=F64) + 0.1)
        for _ in range(steps)
    ]


def run(balancer: Forced, steps: list[tuple[Tensor, Tensor]]) -> Tensor:
    for losses, norms in steps:
        balancer.step(losses, norms)
    return balancer.weights


def test_permuting_the_tasks_permutes_the_weights() -> None:
    steps = random_run()
    order = torch.tensor([2, 0, 3, 1])
    permuted = run(Forced(T), [(losses[order], norms[order]) for losses, norms in steps])
    assert_close(permuted, run(Forced(T), steps)[order])


@pytest.mark.parametrize("scale", [1e-4, 3.0, 1e5])
def test_scaling_all_losses_changes_no_weight(scale: float) -> None:
    steps = random_run()
    scaled = run(Forced(T), [(scale * losses, scale * norms) for losses, norms in steps])
    assert_close(scaled, run(Forced(T), steps))


@pytest.mark.parametrize("alpha", [0.0, 2.0])
def test_scaling_one_loss_does_not_change_its_progress(alpha: float) -> None:
    """Only the norm of a task sees the scale of its loss: L_j(t) / L_j(0) does not."""
    factor = torch.tensor([1.0, 10.0, 1.0, 1.0], dtype=F64)
    steps = random_run()
    scaled = run(Forced(T, alpha=alpha), [(factor * losses, norms) for losses, norms in steps])
    assert_close(scaled, run(Forced(T, alpha=alpha), steps))


def test_one_task_keeps_weight_one() -> None:
    balancer = Forced(1, normalize=False)
    for losses, norms in random_run(num_tasks=1):
        assert balancer.step(losses, norms).tolist() == [1.0]


def test_a_task_that_never_improves_is_pulled_up() -> None:
    balancer = Forced(T, lr=0.01)
    for step in range(20):
        losses = torch.full((T,), 0.9**step, dtype=F64)
        losses[2] = 1.0
        balancer.step(losses, torch.ones(T, dtype=F64))
    assert balancer.weights[2] > 1.1
    assert (balancer.weights[[0, 1, 3]] < 1).all()


def test_alpha_0_equalises_the_norms() -> None:
    balancer = Forced(T, alpha=0.0, lr=0.002)
    norms = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=F64)
    for _ in range(2000):
        balancer.step(torch.ones(T, dtype=F64), norms)
    weighted = balancer.weights * norms
    assert (weighted / weighted.mean() - 1).abs().max() < 0.05


def test_absent_tasks_stay_and_count_in_no_mean() -> None:
    """The present tasks move as they would alone, and their weights keep their sum."""
    steps = random_run()
    present = torch.tensor([True, False, True, True])
    balancer, alone = Forced(T), Forced(3)
    balancer.step(torch.ones(T, dtype=F64), torch.ones(T, dtype=F64))
    alone.step(torch.ones(3, dtype=F64), torch.ones(3, dtype=F64))
    for losses, norms in steps:
        balancer.step(losses, norms, present)
        alone.step(losses[present], norms[present])
    assert balancer.weights[1] == 1
    assert_close(balancer.weights[present], alone.weights)


def test_absence_is_inferred_from_loss_and_gradient() -> None:
    losses = torch.tensor([1.0, 0.0, 2.0, 0.0], dtype=F64)
    norms = torch.tensor([1.0, 0.0, 3.0, 4.0], dtype=F64)
    inferred, told = Forced(T), Forced(T)
    inferred.step(losses, norms)
    told.step(losses, norms, torch.tensor([True, False, True, True]))
    assert torch.equal(inferred.weights, told.weights)
    assert inferred.weights[1] == 1


def test_no_task_present() -> None:
    balancer = Forced(T)
    zeros = torch.zeros(T, dtype=F64)
    assert torch.equal(balancer.step(zeros, zeros), torch.ones(T, dtype=F64))
    assert torch.equal(balancer.initial_losses, zeros)


def test_initial_losses_are_the_first_seen() -> None:
    balancer = Forced(T)
    norms = torch.ones(T, dtype=F64)
    present = torch.tensor([True, False, True, True])
    balancer.step(torch.tensor([1.0, 2.0, 0.0, 4.0], dtype=F64), norms, present)
    balancer.step(torch.tensor([5.0, 6.0, 7.0, 8.0], dtype=F64), norms)
    assert balancer.initial_losses.tolist() == [1.0, 6.0, 7.0, 4.0]


def test_initial_losses_can_be_given() -> None:
    given_losses = torch.tensor([1.0, 2.0, 3.0, 4.0])
    balancer = Forced(T, initial=given_losses)
    balancer.step(torch.rand(T, dtype=F64), torch.rand(T, dtype=F64))
    assert torch.equal(balancer.initial_losses, given_losses.double())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -1.0}, "alpha: expected a finite number >= 0, got -1.0"),
        ({"lr": 0.0}, "lr: expected a finite number > 0"),
        ({"floor": 0.0}, "floor: expected a finite number > 0"),
        ({"floor": 1.0}, "floor: expected less than the mean weight, 1, got 1.0"),
        ({"initial": torch.ones(2)}, r"initial: expected \(num_tasks,\) = \(4,\)"),
        ({"initial": torch.zeros(T)}, "initial: expected positive losses"),
    ],
)
def test_arguments_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GradNorm(Net(), **options)
