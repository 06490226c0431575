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
        weights = least_norm_weights(gramian, 400)
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
    weights = least_norm_weights(gramian, 1)
    apart = 1 + ratio**2 - 2 * inner
    first = 0.5 if apart == 0 else min(max((ratio**2 - inner) / apart, 0.0), 1.0)
    assert_close(weights, torch.tensor([first, 1 - first], dtype=F64))


@pytest.mark.parametrize(("tasks", "iterations"), [(7, 1), (7, 5), (7, 20), (30, 5)])
def test_iterations_are_those_of_the_definition(kernels: str, tasks: int, iterations: int) -> None:
    grads = torch.randn(tasks, 50, dtype=F64) + 0.3
    gramian = grads @ grads.T
    expected = _pairwise_frank_wolfe(gramian.tolist(), iterations)
    assert_close(least_norm_weights(gramian, iterations), expected, scale=10)


def _pairwise_frank_wolfe(gramian: list[list[float]], iterations: int) -> Tensor:
    """Over all pairs, one after the other."""
    tasks = range(len(gramian))
    weights = [1 / len(gramian) for _ in tasks]
    for _ in range(iterations):
        slope = [sum(gramian[a][b] * weights[b] for b in tasks) for a in tasks]
        best = (0.0, 0, 0, 0.0)
        for b in tasks:
            for a in tasks:
                if a == b:
                    continue
                apart = gramian[a][a] + gramian[b][b] - 2 * gramian[a][b]
                drop = slope[a] - slope[b]
                moved = min(max(drop / apart, 0.0), weights[a])
                best = max(best, (moved * drop - moved**2 * apart / 2, b, a, moved))
        _, b, a, moved = best
        weights[b] += moved
        weights[a] -= moved
    return torch.tensor(weights, dtype=F64)


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
    permuted = least_norm_weights(gramian[order][:, order], 50)
    assert_close(permuted, least_norm_weights(gramian, 50)[order], scale=100)


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
