"""The least-norm point against its optimality conditions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fastmtl.ops import least_norm_weights
from tests.axes import one_at_a_time
from tests.tolerances import assert_close

F64 = torch.float64


def gap(gramian: Tensor, weights: Tensor) -> float:
    """How far c^T S c can be above its minimum over the simplex, relative to the largest norm."""
    gramian, weights = gramian.double(), weights.double()
    slope = gramian @ weights
    return float((weights @ slope - slope.min()) / gramian.diagonal().max())


OPTIMA = one_at_a_time(
    {"tasks": 7, "shift": 1.0, "dtype": torch.float32},
    {"tasks": [1, 2, 3, 30], "shift": [0.0], "dtype": [F64]},
    {"tasks": 30, "shift": 0.0, "dtype": F64},
)


@pytest.mark.parametrize("case", OPTIMA)
def test_optimality(kernels: str, case: dict[str, Any]) -> None:
    tasks, dtype = case["tasks"], case["dtype"]
    scale = torch.logspace(-1, 1, tasks, dtype=dtype).unsqueeze(1)
    for _ in range(3):
        grads = scale * (torch.randn(tasks, 200, dtype=dtype) + case["shift"])
        gramian = grads @ grads.T
        weights = least_norm_weights(gramian)
        assert weights.dtype == dtype
        assert (weights >= 0).all()
        assert_close(weights.sum(), torch.ones((), dtype=F64), scale=10)
        assert gap(gramian, weights) < 20 * torch.finfo(dtype).eps


@pytest.mark.parametrize("cosine", [-1.0, -0.5, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("ratio", [0.01, 1.0, 3.0])
def test_two_tasks_have_a_closed_form(backend: str, cosine: float, ratio: float) -> None:
    """Sener and Koltun 2018, algorithm 1."""
    inner = cosine * ratio
    gramian = torch.tensor([[1.0, inner], [inner, ratio**2]], dtype=F64)
    weights = least_norm_weights(gramian)
    apart = 1 + ratio**2 - 2 * inner
    first = 0.5 if apart == 0 else min(max((ratio**2 - inner) / apart, 0.0), 1.0)
    assert_close(weights, torch.tensor([first, 1 - first], dtype=F64))


def spread_gradients(tasks: int, size: int, decades: float) -> Tensor:
    """Random gradients whose norms are so many decades apart, in no order."""
    scale = torch.logspace(0, decades, tasks, dtype=F64)[torch.randperm(tasks)]
    return scale.unsqueeze(1) * torch.randn(tasks, size, dtype=F64)


@pytest.mark.parametrize("decades", [0, 2, 4])
@pytest.mark.parametrize("tasks", [32, 100, 200])
def test_however_many_tasks_and_far_apart_norms(isa: str, tasks: int, decades: int) -> None:
    """The duality gap bounds how far a squared norm is above the least one."""
    grads = spread_gradients(tasks, 400, decades)
    gramian = grads @ grads.T
    weights = least_norm_weights(gramian)
    slope = gramian @ weights
    squared_norm = weights @ slope
    assert squared_norm - slope.min() < 1e-6 * squared_norm
    single = least_norm_weights(gramian.float()).double()
    assert single @ gramian @ single < (1 + 1e-6) * squared_norm


@pytest.mark.parametrize("tasks", [7, 60])
def test_agrees_with_non_negative_least_squares(kernels: str, tasks: int) -> None:
    """c = u / sum u, where u >= 0 minimises ||G^T u||^2 + (sum u - 1)^2."""
    optimize = pytest.importorskip("scipy.optimize")
    grads = spread_gradients(tasks, 90, 1) + 0.2
    rows = torch.cat([grads.T, torch.ones(1, tasks, dtype=F64)])
    wanted = torch.zeros(91, dtype=F64)
    wanted[-1] = 1
    solution, _ = optimize.nnls(rows.numpy(), wanted.numpy())
    expected = torch.from_numpy(solution / solution.sum())
    assert_close(least_norm_weights(grads @ grads.T), expected, scale=1e4)


@pytest.mark.parametrize("iterations", [1, 5, 20, 60])
def test_stopped_early_it_is_still_better_than_one_task(kernels: str, iterations: int) -> None:
    grads = spread_gradients(40, 90, 1)
    gramian = grads @ grads.T
    weights = least_norm_weights(gramian, iterations)
    assert (weights >= 0).all()
    assert_close(weights.sum(), torch.ones((), dtype=F64))
    assert weights @ gramian @ weights < gramian.diagonal().min()
    assert int((weights > 0).sum()) <= iterations + 1


@pytest.mark.parametrize("tasks", [2, 7, 40])
def test_weight_is_spread_evenly_over_equal_gradients(kernels: str, tasks: int) -> None:
    gramian = torch.ones(tasks, tasks, dtype=F64)
    even = torch.full((tasks,), 1 / tasks, dtype=F64)
    torch.testing.assert_close(least_norm_weights(gramian), even, rtol=1e-5, atol=0)
    # As they come, with the rounding errors of float32.
    shared = torch.randn(1, 50)
    grads = shared.expand(tasks, -1) * torch.linspace(0.5, 3, tasks).unsqueeze(1)
    grads = grads / grads.norm(dim=1, keepdim=True)
    weights = least_norm_weights(grads @ grads.T)
    assert weights.max() < 2 / tasks


@given(st.integers(4, 12), st.integers(1, 3))
def test_order_of_dependent_gradients_changes_nothing(backend: str, tasks: int, size: int) -> None:
    grads, order = torch.randn(tasks, size, dtype=F64) + 0.5, torch.randperm(tasks)
    gramian = grads @ grads.T
    permuted = least_norm_weights(gramian[order][:, order])
    torch.testing.assert_close(permuted, least_norm_weights(gramian)[order], rtol=0, atol=1e-5)


@given(st.integers(1, 9), st.floats(-30, 30))
def test_scale_of_the_gradients_changes_nothing(backend: str, tasks: int, exponent: float) -> None:
    grads = torch.randn(tasks, 8)
    gramian = grads @ grads.T
    scaled = least_norm_weights(gramian * 10.0**exponent)
    assert_close(scaled, least_norm_weights(gramian.double()), scale=100)


@given(st.integers(1, 9))
def test_order_of_the_tasks_changes_nothing(backend: str, tasks: int) -> None:
    grads, order = torch.randn(tasks, 40, dtype=F64), torch.randperm(tasks)
    gramian = grads @ grads.T
    permuted = least_norm_weights(gramian[order][:, order])
    assert_close(permuted, least_norm_weights(gramian)[order], scale=100)


@given(st.integers(1, 6))
def test_a_task_without_gradient_is_as_deleted(backend: str, tasks: int) -> None:
    grads = torch.randn(tasks + 1, 40, dtype=F64)
    grads[tasks // 2] = 0
    rest = torch.arange(tasks + 1) != tasks // 2
    weights = least_norm_weights(grads @ grads.T)
    assert weights[~rest] == 0
    assert_close(weights[rest], least_norm_weights(grads[rest] @ grads[rest].T))


def test_degenerate_gramians(kernels: str) -> None:
    assert torch.equal(least_norm_weights(torch.zeros(3, 3)), torch.zeros(3))
    assert_close(least_norm_weights(torch.ones(4, 4)).sum(), torch.ones(()))
    one = torch.zeros(3, 3)
    one[1, 1] = 4
    assert least_norm_weights(one).tolist() == [0, 1, 0]
    assert least_norm_weights(torch.zeros(0, 0)).shape == (0,)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [(0, 0), (1, 2)])
def test_what_is_not_finite_gives_nan(kernels: str, value: float, place: tuple[int, int]) -> None:
    gramian = torch.eye(3)
    gramian[place] = value
    assert least_norm_weights(gramian).isnan().all()


def test_has_no_graph(backend: str) -> None:
    gramian = torch.eye(3, requires_grad=True)
    assert not least_norm_weights(gramian).requires_grad


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"gramian": torch.eye(2).half()}, TypeError, "gramian: expected float32 or float64"),
        ({"gramian": torch.zeros(2, 3)}, ValueError, r"gramian: expected shape \(T, T\), got"),
        ({"iterations": 0}, ValueError, "iterations: expected an int of at least 1, got 0"),
        ({"iterations": 1.5}, ValueError, "iterations: expected an int of at least 1, got 1.5"),
    ],
)
def test_wrong_arguments(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        least_norm_weights(**{"gramian": torch.eye(2)} | wrong)
