"""The methods that need the Gramian alone, against their papers' algorithms on the gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from fastmtl.balancing import (
    IMTLG,
    AlignedMTL,
    CAGrad,
    ConFIG,
    DualProj,
    FairGrad,
    GradVac,
    GramianBalancer,
    NashMTL,
    PCGrad,
    UPGrad,
)
from fastmtl.nn import TaskFork
from tests.balancing import papers
from tests.balancing.networks import F64, Net, batch

Made = Callable[..., GramianBalancer]
METHODS: dict[str, tuple[Made, Callable[[], papers.Method]]] = {
    "PCGrad": (PCGrad, lambda: papers.pcgrad),
    "GradVac": (GradVac, papers.GradVac),
    "CAGrad": (CAGrad, lambda: papers.cagrad),
    "NashMTL": (NashMTL, lambda: papers.nash_mtl),
    "FairGrad": (FairGrad, lambda: papers.fair_grad),
    "FairGrad-2": (
        lambda model: FairGrad(model, alpha=2.0),
        lambda: lambda grads: papers.fair_grad(grads, 2.0),
    ),
    "FairGrad-0.5": (
        lambda model: FairGrad(model, alpha=0.5),
        lambda: lambda grads: papers.fair_grad(grads, 0.5),
    ),
    "IMTLG": (IMTLG, lambda: papers.imtl_g),
    "AlignedMTL": (AlignedMTL, lambda: papers.aligned_mtl),
    "ConFIG": (ConFIG, lambda: papers.config),
    "UPGrad": (UPGrad, lambda: papers.upgrad),
    "DualProj": (DualProj, lambda: papers.dual_proj),
}
every_method = pytest.mark.parametrize("name", METHODS)
# FairGrad's steps are as long near a minimum as elsewhere: longer ones would jump about there.
LR = 0.005
BARGAINS = ["NashMTL", "FairGrad", "FairGrad-2", "FairGrad-0.5"]
KINDS = ["plain", "conflict", "duplicate", "opposite", "scaled"]
# The paper's algorithm has no solution, or several, of which it does not say which.
UNDEFINED = {
    *((name, "opposite") for name in [*BARGAINS, "IMTLG", "ConFIG", "CAGrad"]),
    ("IMTLG", "duplicate"),
}


def combine(method: Made, grads: Tensor, **options: object) -> tuple[Tensor, Tensor]:
    """The combination (D,) that a method makes of given gradients (T, D), and its weights."""
    fork = TaskFork(len(grads))
    balancer = method(fork, **options).to(grads.dtype)
    z = torch.zeros(grads.shape[1], dtype=grads.dtype, requires_grad=True)
    balancer.backward((fork(z) * grads).sum(1))
    assert z.grad is not None
    return z.grad, balancer.weights


def problems(kind: str) -> Iterator[Tensor]:
    """Gradients whose hull does not hold 0, but for the opposite ones."""
    generator = torch.Generator().manual_seed(0)
    for num_tasks in (1, 2, 3, 7):
        for size in (num_tasks + 2, 40):
            for bias in (0.0, 0.3, 1.0):
                grads = torch.randn(num_tasks, size, dtype=F64, generator=generator) + bias
                if kind == "conflict" and num_tasks > 1:
                    grads = grads - 0.9 * grads.mean(0)
                if kind == "duplicate":
                    grads[-1] = grads[0]
                if kind == "opposite" and num_tasks > 1:
                    grads[-1] = -2 * grads[0]
                if kind == "scaled":
                    grads = grads * 10 ** torch.linspace(-4, 4, num_tasks, dtype=F64)[:, None]
                yield grads


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in METHODS for kind in KINDS if (name, kind) not in UNDEFINED],
)
def test_combination_is_that_of_the_paper(name: str, kind: str) -> None:
    method, paper = METHODS[name]
    for seed, grads in enumerate(problems(kind)):
        torch.manual_seed(seed)
        combined, _ = combine(method, grads)
        torch.manual_seed(seed)
        expected = paper()(grads) @ grads
        scale = torch.maximum(expected.norm(), grads.norm(dim=1).max())
        error = float((combined - expected).abs().max() / scale)
        assert error < 1e-6, (tuple(grads.shape), error)


@pytest.mark.parametrize("kind", [*KINDS, "zero"])
@pytest.mark.parametrize("c", [0.2, 0.5, 0.9])
def test_no_direction_in_the_ball_is_better_than_cagrads(kind: str, c: float) -> None:
    """The least gain along it reaches an upper bound of what any can have."""
    for grads in problems("conflict" if kind == "zero" else kind):
        if kind == "zero":
            grads = grads - grads.mean(0)
        combined, weights = combine(CAGrad, grads, c=c)
        mean = grads.mean(0)
        radius = c * mean.norm()
        assert (combined - mean).norm() <= radius * (1 + 1e-6) + 1e-9
        w = weights - 1 / len(grads)
        w = w / w.sum() if w.sum() > 0 else w
        bound = (w @ grads) @ mean + radius * (w @ grads).norm()
        scale = grads.norm(dim=1).max() * mean.norm().clamp(min=1e-6)
        assert bound - (grads @ combined).min() <= 1e-5 * scale


@every_method
def test_a_gradient_of_zero_has_no_part(name: str) -> None:
    method, _ = METHODS[name]
    for grads in problems("conflict"):
        if len(grads) != 2:
            continue
        alone, weights = combine(method, grads)
        zero = torch.cat([grads[:1], torch.zeros_like(grads[:1]), grads[1:]])
        combined, padded = combine(method, zero)
        torch.testing.assert_close(combined, alone, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(padded[[0, 2]], weights, rtol=1e-9, atol=1e-9)


@every_method
def test_all_gradients_of_zero(name: str) -> None:
    combined, weights = combine(METHODS[name][0], torch.zeros(3, 5, dtype=F64))
    assert combined.eq(0).all()
    assert weights.isfinite().all()


@every_method
def test_opposite_gradients_give_a_finite_combination(name: str) -> None:
    grads = torch.tensor([[3.0, 0.0], [-6.0, 0.0]], dtype=F64)
    for dtype in (torch.float64, torch.float32):
        combined, weights = combine(METHODS[name][0], grads.to(dtype))
        assert weights.isfinite().all()
        assert combined.norm() <= 10
    if name in ("IMTLG", "ConFIG", "UPGrad", "DualProj", "PCGrad"):
        torch.testing.assert_close(combined, torch.zeros(2), rtol=0, atol=1e-4)


@every_method
def test_float32_gramians(name: str) -> None:
    for seed, grads in enumerate(problems("plain")):
        torch.manual_seed(seed)
        expected, _ = combine(METHODS[name][0], grads)
        torch.manual_seed(seed)
        combined, _ = combine(METHODS[name][0], grads.float())
        error = (combined - expected).abs().max() / expected.abs().max()
        assert error < 1e-3, (tuple(grads.shape), float(error))


def train_by_hand(net: Net, paper: papers.Method, steps: int) -> None:
    """The method with one backward pass per task, and SGD."""
    heads = [*net.first.parameters(), *net.last.parameters()]
    shared = [p for p in net.parameters() if all(p is not head for head in heads)]
    for step in range(steps):
        torch.manual_seed(step)
        losses = net(batch(seed=step))
        grads = [torch.autograd.grad(loss, shared, retain_graph=True) for loss in losses]
        of_weight = next(k for k, p in enumerate(shared) if p is net.shared.weight)
        weights = paper(torch.stack([grad[of_weight].flatten() for grad in grads]))
        of_heads = torch.autograd.grad(losses.sum(), heads)
        with torch.no_grad():
            for k, parameter in enumerate(shared):
                for weight, grad in zip(weights, grads, strict=True):
                    parameter -= LR * weight * grad[k]
            for parameter, grad in zip(heads, of_heads, strict=True):
                parameter -= LR * grad


@every_method
def test_fifty_steps_are_those_of_the_paper(name: str) -> None:
    torch.manual_seed(0)
    net = Net()
    twin = copy.deepcopy(net)
    method, paper = METHODS[name]
    train_by_hand(twin, paper(), 50)
    balancer = method(net).double()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    for step in range(50):
        torch.manual_seed(step)
        balancer.backward(net(batch(seed=step)))
        optimizer.step()
        optimizer.zero_grad()
    for parameter, other in zip(net.parameters(), twin.parameters(), strict=True):
        assert float((parameter - other).detach().abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda net: CAGrad(net, c=1.0), r"c: expected a number in \[0, 1\), got 1.0"),
        (lambda net: CAGrad(net, c=-0.1), "c: expected a finite number >= 0, got -0.1"),
        (lambda net: FairGrad(net, alpha=0.0), "alpha: expected a finite number > 0.0, got 0.0"),
        (lambda net: GradVac(net, beta=1.5), r"beta: expected a number in \(0, 1\], got 1.5"),
        (lambda net: UPGrad(net, balance_at="last"), "model: a Gramian is taken at"),
    ],
)
def test_arguments_are_checked(make: Made, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(Net())
