"""Gradients changed by one another, against the algorithms on vectors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import fastmtl
from fastmtl.ops import gradvac_weights, pcgrad_weights
from tests.tolerances import assert_close

F64 = torch.float64
KINDS = ["plain", "duplicate", "opposite", "absent"]


def gradients(tasks: int, size: int, kind: str = "plain") -> Tensor:
    grads = torch.randn(tasks, size, dtype=F64)
    grads = grads - 0.5 * grads.mean(0)
    if kind == "duplicate":
        grads[-1] = grads[0]
    if kind == "opposite" and tasks > 1:
        grads[-1] = -2 * grads[0]
    if kind == "absent":
        grads[tasks // 2] = 0
    return grads


def orders(tasks: int) -> Tensor:
    return torch.rand(tasks, tasks).argsort(1)


def projected(grads: Tensor, order: Tensor) -> Tensor:
    """The sum of the gradients, each projected in turn, as the paper's algorithm 1 has it."""
    total = torch.zeros(grads.shape[1], dtype=F64)
    for i, row in enumerate(order.tolist()):
        changed = grads[i].clone()
        for j in row:
            if j != i and grads[j].any() and changed @ grads[j] < 0:
                changed -= changed @ grads[j] / (grads[j] @ grads[j]) * grads[j]
        total += changed
    return total


def vaccinated(grads: Tensor, order: Tensor, phihat: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """The sum of the gradients, each turned in turn, and the new phihat."""
    total, phihat = torch.zeros(grads.shape[1], dtype=F64), phihat.clone()
    for i, row in enumerate(order.tolist()):
        changed = grads[i].clone()
        for j in row:
            norm, other = float(changed.norm()), float(grads[j].norm())
            if j == i or norm < 1e-7 * grads[i].norm() or not norm or not other:
                continue
            target, cosine = float(phihat[i, j]), float(changed @ grads[j]) / norm / other
            phihat[i, j] = (1 - beta) * target + beta * cosine
            if cosine < target:
                sine = math.sqrt(1 - target * target)
                own = target * math.sqrt(max(1 - cosine * cosine, 0)) - cosine * sine
                changed += norm * own / (other * sine) * grads[j]
        total += changed
    return total, phihat


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("tasks", "size"), [(1, 3), (2, 5), (7, 4), (7, 40), (33, 20)])
def test_projections(kernels: str, kind: str, tasks: int, size: int) -> None:
    grads, order = gradients(tasks, size, kind), orders(tasks)
    weights = pcgrad_weights(grads @ grads.T, order)
    torch.testing.assert_close(weights @ grads, projected(grads, order), rtol=1e-9, atol=1e-9)
    present = grads.any(1)
    assert (weights[~present] == 0).all()
    assert (weights[present] >= 1).all()


@pytest.mark.parametrize("kind", ["plain", "duplicate", "absent"])
@pytest.mark.parametrize(("tasks", "size"), [(1, 3), (2, 5), (7, 40), (33, 90)])
def test_vaccine(kernels: str, kind: str, tasks: int, size: int) -> None:
    grads, order = gradients(tasks, size, kind), orders(tasks)
    phihat = 1.6 * torch.rand(tasks, tasks, dtype=F64) - 0.8
    before = phihat.clone()
    weights, after = gradvac_weights(grads @ grads.T, order, phihat, 0.1)
    total, wanted = vaccinated(grads, order, phihat, 0.1)
    torch.testing.assert_close(weights @ grads, total, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(after, wanted, rtol=1e-8, atol=1e-8)
    assert torch.equal(phihat, before)


def test_cosines_of_one(kernels: str) -> None:
    """What stays of gradients that are one does not divide by a sine of 0."""
    grads, order = gradients(2, 5, "duplicate"), orders(2)
    phihat = torch.ones(2, 2, dtype=F64)
    weights, after = gradvac_weights(grads @ grads.T, order, phihat)
    assert weights.isfinite().all()
    torch.testing.assert_close(after, phihat)


@pytest.mark.parametrize("tasks", [5, 64, 100])
def test_instruction_sets_agree(isa: str, tasks: int) -> None:
    grads, order = gradients(tasks, 3 * tasks), orders(tasks)
    gramian, phihat = grads @ grads.T, 0.1 * torch.randn(tasks, tasks, dtype=F64)
    found = [pcgrad_weights(gramian, order), *gradvac_weights(gramian, order, phihat)]
    with fastmtl.use_backend("reference"):
        wanted = [pcgrad_weights(gramian, order), *gradvac_weights(gramian, order, phihat)]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_gramian_that_is_not_finite(kernels: str, dtype: torch.dtype, value: float) -> None:
    gramian, order, phihat = torch.eye(3, dtype=dtype), orders(3), torch.rand(3, 3, dtype=dtype)
    gramian[0, 2] = value
    assert pcgrad_weights(gramian, order).isnan().all()
    weights, after = gradvac_weights(gramian, order, phihat)
    assert weights.isnan().all()
    assert torch.equal(after, phihat)


def test_single_precision_and_strides(kernels: str) -> None:
    grads, order = gradients(6, 20), orders(6)
    gramian = (grads @ grads.T).float()
    wide = torch.zeros(6, 12)
    wide[:, ::2] = gramian
    weights = pcgrad_weights(wide[:, ::2], order.T.contiguous().T)
    assert weights.dtype == torch.float32
    assert_close(weights, pcgrad_weights(gramian.double(), order))


def test_no_tasks(kernels: str) -> None:
    nothing, order = torch.zeros(0, 0), torch.zeros(0, 0, dtype=torch.int64)
    assert pcgrad_weights(nothing, order).shape == (0,)
    assert [part.shape for part in gradvac_weights(nothing, order, nothing)] == [(0,), (0, 0)]


EYE, ORDER = torch.eye(2), torch.tensor([[0, 1], [1, 0]])
GOOD: dict[str, Any] = {"gramian": EYE, "order": ORDER, "phihat": EYE}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"gramian": [[1.0]]}, TypeError, "gramian: expected"),
        (
            {"gramian": EYE.half(), "phihat": EYE.half()},
            TypeError,
            "gramian: expected float32 or float64, got",
        ),
        ({"gramian": torch.ones(2, 3)}, ValueError, r"gramian: expected shape \(T, T\)"),
        ({"order": ORDER.int()}, TypeError, "order: expected int64"),
        ({"order": ORDER[:1]}, ValueError, "order: expected"),
        ({"order": ORDER.to("meta")}, ValueError, "order: expected"),
        ({"order": ORDER + 1}, ValueError, "order: expected indices from 0 to 1, got 1 to 2"),
        ({"order": ORDER - 1}, ValueError, "order: expected indices from 0 to 1, got -1 to 0"),
        ({"phihat": EYE.double()}, TypeError, "phihat: expected the dtype of gramian"),
        ({"phihat": EYE[:1]}, ValueError, "phihat: expected"),
        ({"beta": 0.0}, ValueError, "beta: expected"),
        ({"beta": 1.5}, ValueError, r"beta: expected a number in \(0, 1\], got 1.5"),
        ({"rounding": -1.0}, ValueError, "rounding: expected"),
    ],
)
def test_wrong_arguments(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gradvac_weights(**GOOD | arguments)
    if message.startswith(("gramian", "order")):
        with pytest.raises(error, match=message):
            pcgrad_weights(**{k: v for k, v in (GOOD | arguments).items() if k != "phihat"})
