"""Quadratic programs over v >= 0 against their optimality conditions and a solver."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fastmtl.ops import nonnegative_qp
from tests.tolerances import assert_close

F64 = torch.float64
HALF = {"matrix": torch.eye(2).half(), "linear": torch.zeros(1, 2).half()}


def problem(tasks: int, size: int, kind: str = "plain", ridge: float = 1e-12) -> Any:
    """The projections of gradients onto their dual cone: matrix, linear, and the gradients."""
    grads = torch.randn(tasks, size, dtype=F64)
    if kind == "duplicate":
        grads[-1] = grads[0]
    if kind == "opposite" and tasks > 1:
        grads[-1] = -2 * grads[0]
    if kind == "conflict":
        grads = grads - 0.9 * grads.mean(0)
    grads = grads / grads.norm(dim=1, keepdim=True)
    cosines = grads @ grads.T
    return cosines + ridge * torch.eye(tasks, dtype=F64), cosines, grads


def violation(matrix: Tensor, linear: Tensor, v: Tensor) -> float:
    """Of H v + q >= 0, v >= 0 and v (H v + q) = 0, in units of q."""
    slack = v @ matrix + linear
    assert (v >= 0).all()
    worst = torch.maximum((-slack).clamp(min=0).max(), (v * slack).abs().max())
    return float(worst / linear.abs().max())


@pytest.mark.parametrize("kind", ["plain", "duplicate", "opposite", "conflict"])
@pytest.mark.parametrize(("tasks", "size"), [(1, 3), (2, 5), (7, 4), (32, 17), (32, 200)])
def test_optimality(kernels: str, kind: str, tasks: int, size: int) -> None:
    matrix, linear, grads = problem(tasks, size, kind)
    v = nonnegative_qp(matrix, linear)
    assert violation(matrix, linear, v) < 1e-6
    # No loss rises along the projections.
    assert ((grads + v @ grads) @ grads.T).min() > -1e-6


@pytest.mark.parametrize("tasks", [3, 20, 100])
def test_agrees_with_quadprog(isa: str, tasks: int) -> None:
    quadprog = pytest.importorskip("quadprog")
    matrix, linear, _ = problem(tasks, 3 * tasks)
    linear = torch.cat([linear[:5], linear.mean(0, keepdim=True)])
    v = nonnegative_qp(matrix, linear)
    positive = (torch.eye(tasks, dtype=F64).numpy(), torch.zeros(tasks, dtype=F64).numpy())
    for row, found in zip(linear.numpy(), v, strict=True):
        exact = quadprog.solve_qp(matrix.numpy(), -row, *positive)[0]
        torch.testing.assert_close(found, torch.from_numpy(exact), rtol=1e-6, atol=1e-6)


def test_dependent_gradients_share(kernels: str) -> None:
    """Of several solutions the middle one, in whatever order the tasks stand."""
    matrix = torch.ones(4, 4, dtype=F64) + 1e-12 * torch.eye(4, dtype=F64)
    v = nonnegative_qp(matrix, -torch.ones(1, 4, dtype=F64))
    torch.testing.assert_close(v, torch.full((1, 4), 0.25, dtype=F64), rtol=1e-3, atol=0)


@given(st.integers(2, 9))
def test_order_of_the_tasks_changes_nothing(backend: str, tasks: int) -> None:
    matrix, linear, _ = problem(tasks, 40)
    order = torch.randperm(tasks)
    permuted = nonnegative_qp(matrix[order][:, order], linear[:, order])
    torch.testing.assert_close(permuted, nonnegative_qp(matrix, linear)[:, order])


@given(st.integers(1, 6), st.floats(-8, 8))
def test_units_of_the_unknowns(backend: str, tasks: int, exponent: float) -> None:
    matrix, linear, _ = problem(tasks, 40)
    units = 10.0 ** torch.linspace(0, exponent, tasks, dtype=F64)
    scaled = nonnegative_qp(matrix * units * units.unsqueeze(1), linear * units)
    torch.testing.assert_close(scaled * units, nonnegative_qp(matrix, linear))


def test_single_precision(kernels: str) -> None:
    matrix, linear, _ = problem(12, 40, ridge=1e-4)
    v = nonnegative_qp(matrix.float(), linear.float())
    assert v.dtype == torch.float32
    assert_close(v, nonnegative_qp(matrix, linear), scale=1e3)


def test_nothing_to_solve(kernels: str) -> None:
    eye = torch.eye(3)
    assert nonnegative_qp(eye, torch.zeros(0, 3)).shape == (0, 3)
    assert nonnegative_qp(torch.zeros(0, 0), torch.zeros(2, 0)).shape == (2, 0)
    assert nonnegative_qp(eye, torch.ones(1, 3)).abs().max() < 1e-7
    assert nonnegative_qp(eye, torch.zeros(2, 3)).abs().max() < 1e-7


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["matrix", "linear"])
def test_what_is_not_finite_gives_nan(kernels: str, value: float, where: str) -> None:
    arguments = {"matrix": torch.eye(3), "linear": torch.ones(2, 3)}
    arguments[where][1, 1] = value
    assert nonnegative_qp(**arguments).isnan().all()


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (HALF, TypeError, "matrix: expected float32 or float64"),
        ({"matrix": torch.zeros(2, 3)}, ValueError, r"matrix: expected shape \(T, T\), got"),
        ({"linear": torch.zeros(2)}, ValueError, r"linear: expected shape \(B, T\) with T = 2"),
        ({"linear": torch.zeros(1, 3)}, ValueError, r"linear: expected shape \(B, T\) with T = 2"),
        ({"linear": torch.zeros(1, 2).double()}, TypeError, "linear: expected the dtype of matrix"),
    ],
)
def test_wrong_arguments(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nonnegative_qp(**{"matrix": torch.eye(2), "linear": torch.zeros(1, 2)} | wrong)
