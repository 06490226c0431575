"""The least-norm point against its optimality conditions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastmtl.ops import least_norm_weights
from tests.tolerances import assert_close

F64 = torch.float64
pytestmark = pytest.mark.usefixtures("backend")


def gap(gramian: Tensor, weights: Tensor) -> float:
    """How far c^T S c can be above its minimum over the simplex, relative to the largest norm."""
    gramian, weights = gramian.double(), weights.double()
    slope = gramian @ weights
    return float((weights @ slope - slope.min()) / gramian.diagonal().max())


@pytest.mark.parametrize("num_tasks", [1, 2, 3, 7, 30])
@pytest.mark.parametrize("shift", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_optimality(num_tasks: int, shift: float, dtype: torch.dtype) -> None:
    scale = torch.logspace(-1, 1, num_tasks, dtype=dtype).unsqueeze(1)
    for _ in range(3):
        grads = scale * (torch.randn(num_tasks, 200, dtype=dtype) + shift)
        gramian = grads @ grads.T
        weights = least_norm_weights(gramian, 400)
        assert weights.dtype == dtype
        assert (weights >= 0).all()
        assert_close(weights.sum(), torch.ones((), dtype=F64), scale=10)
        assert gap(gramian, weights) < 20 * torch.finfo(dtype).eps


@pytest.mark.parametrize("cosine", [-1.0, -0.5, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("ratio", [0.01, 1.0, 3.0])
def test_two_tasks_have_a_closed_form(cosine: float, ratio: float) -> None:
    """Sener and Koltun 2018, algorithm 1."""
    inner = cosine * ratio
    gramian = torch.tensor([[1.0, inner], [inner, ratio**2]], dtype=F64)
    weights = least_norm_weights(gramian, 1)
    apart = 1 + ratio**2 - 2 * inner
    first = 0.5 if apart == 0 else min(max((ratio**2 - inner) / apart, 0.0), 1.0)
    assert_close(weights, torch.tensor([first, 1 - first], dtype=F64))


@pytest.mark.parametrize("num_tasks", [7, 30])
def test_iterations_are_those_of_the_reference(num_tasks: int) -> None:
    grads = torch.randn(num_tasks, 50, dtype=F64) + 0.3
    gramian = grads @ grads.T
    for iterations in (1, 5, 20):
        expected = _pairwise_frank_wolfe(gramian, iterations)
        assert_close(least_norm_weights(gramian, iterations), expected, scale=10)


def _pairwise_frank_wolfe(gramian: Tensor, iterations: int) -> Tensor:
    """Over all pairs, one after the other."""
    tasks = range(len(gramian))
    weights = torch.full((len(gramian),), 1 / len(gramian), dtype=F64)
    for _ in range(iterations):
        slope, best = gramian @ weights, (0.0, 0, 0, 0.0)
        for b in tasks:
            for a in tasks:
                if a == b:
                    continue
                apart = float(gramian[a, a] + gramian[b, b] - 2 * gramian[a, b])
                drop = float(slope[a] - slope[b])
                moved = min(max(drop / apart, 0.0), float(weights[a]))
                best = max(best, (moved * drop - moved**2 * apart / 2, b, a, moved))
        _, b, a, moved = best
        weights[b] += moved
        weights[a] -= moved
    return weights


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale_of_the_gradients_changes_nothing(scale: float) -> None:
    grads = torch.randn(5, 8)
    gramian = grads @ grads.T
    expected = least_norm_weights(gramian.double())
    assert_close(least_norm_weights(gramian * scale), expected, scale=100)


def test_order_of_the_tasks_changes_nothing() -> None:
    grads, order = torch.randn(6, 40, dtype=F64), torch.randperm(6)
    gramian = grads @ grads.T
    permuted = least_norm_weights(gramian[order][:, order], 1000)
    assert_close(permuted, least_norm_weights(gramian, 1000)[order])


def test_degenerate_gramians() -> None:
    assert torch.equal(least_norm_weights(torch.zeros(3, 3)), torch.zeros(3))
    assert_close(least_norm_weights(torch.ones(4, 4)).sum(), torch.ones(()))
    one = torch.zeros(3, 3)
    one[1, 1] = 4
    assert least_norm_weights(one).tolist() == [0, 1, 0]
    assert least_norm_weights(torch.zeros(0, 0)).shape == (0,)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [(0, 0), (1, 2)])
def test_what_is_not_finite_gives_nan(value: float, place: tuple[int, int]) -> None:
    gramian = torch.eye(3)
    gramian[place] = value
    assert least_norm_weights(gramian).isnan().all()


def test_not_contiguous_and_without_a_graph() -> None:
    grads = torch.randn(4, 9, dtype=F64)
    gramian = (grads @ grads.T).repeat_interleave(2, 1)[:, ::2].requires_grad_()
    weights = least_norm_weights(gramian)
    assert not weights.requires_grad
    assert torch.equal(weights, least_norm_weights(gramian.detach().contiguous()))


def test_arguments_are_checked() -> None:
    with pytest.raises(TypeError, match="gramian: expected float32 or float64"):
        least_norm_weights(torch.eye(2).half())
    with pytest.raises(ValueError, match=r"gramian: expected shape \(T, T\), got \(2, 3\)"):
        least_norm_weights(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="iterations: expected an int of at least 1, got 0"):
        least_norm_weights(torch.eye(2), 0)
