from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cosine_similarity

import fastmtl
from fastmtl.ops import fusion_edge_weights, graph_fusion
from tests.axes import one_at_a_time
from tests.problems import (
    Problem,
    check,
    closed_form,
    exact,
    graph_fusion_problem,
    seeds_for,
    solve,
)
from tests.tolerances import assert_close

F64 = torch.float64
DTYPES = [torch.float32, F64, torch.bfloat16, torch.float16]
OPS = [graph_fusion, fusion_edge_weights]

CASES = one_at_a_time(
    # Samples of several runs, features and fused features with tails: B, P, D, D'.
    {"sizes": (40, 6, 33, 65), "dtype": torch.float32},
    {
        "sizes": [(5, 3, 16, 8), (1, 2, 1, 1), (17, 4, 128, 7), (0, 3, 4, 4), (2, 12, 70, 5)],
        "dtype": DTYPES[1:],
        "theta": [0.01, 2.0],
    },
    {"sizes": (17, 4, 128, 7), "dtype": torch.bfloat16},
)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("op", OPS)
def test_agrees_with_float64(kernels: str, op: Any, case: dict[str, Any]) -> None:
    # Cosines near 1 differ by little, and their gradients cancel.
    dtypes = check(graph_fusion_problem(op, **case), scale=2)
    assert set(dtypes) == {case["dtype"]}


def test_definition(backend: str) -> None:
    problem = graph_fusion_problem(graph_fusion, (4, 3, 10, 6), F64, theta=0.7)
    vertices, importance, edge_vertices = problem.leaves.values()
    p = torch.softmax(vertices, 2)
    q = torch.stack(
        [
            (importance[:, a] + importance[:, b])
            / (cosine_similarity(p[:, a], p[:, b], dim=1) + 0.7)
            for a, b in combinations(range(3), 2)
        ],
        1,
    )
    fused, weights = problem.outputs()
    assert_close(weights, torch.softmax(q, 1))
    assert_close(fused, (torch.softmax(q, 1)[:, :, None] * edge_vertices).sum(1))


@pytest.mark.parametrize("op", OPS)
def test_closed_form_of_the_reference_is_its_derivative(op: Any) -> None:
    problem = graph_fusion_problem(op, (3, 4, 5, 2), F64)
    seeds = seeds_for(problem)
    for one, other in zip(closed_form(problem, seeds), exact(problem, seeds), strict=True):
        assert_close(one, other)


sizes = st.tuples(*(st.integers(least, most) for least, most in [(1, 40), (2, 6), (1, 50), (0, 9)]))


@given(sizes)
def test_edge_weights_sum_to_one(backend: str, size: tuple[int, int, int, int]) -> None:
    _, weights = graph_fusion_problem(graph_fusion, size, F64).outputs()
    assert (weights >= 0).all()
    assert_close(weights.sum(1), torch.ones(size[0]))


@given(sizes)
def test_edges_can_be_permuted_and_turned(backend: str, size: tuple[int, int, int, int]) -> None:
    problem = graph_fusion_problem(graph_fusion, size, F64)
    edges, edge_vertices = problem.others["edges"], problem.leaves["edge_vertices"]
    order = torch.randperm(len(edges))
    shuffled = problem.put(
        edges=[edges[k][::-1] for k in order], edge_vertices=edge_vertices[:, order]
    )
    fused, weights = problem.outputs()
    again, permuted = shuffled.outputs()
    assert_close(permuted, weights[:, order])
    assert_close(again, fused)


@given(sizes)
def test_shifting_a_vertex_changes_nothing(backend: str, size: tuple[int, int, int, int]) -> None:
    problem = graph_fusion_problem(fusion_edge_weights, size, F64)
    vertices = problem.leaves["vertices"]
    weights, slope, _ = solve(problem, seeds_for(problem))
    (shifted,) = problem.put(vertices=vertices + torch.randn(*size[:2], 1)).outputs()
    assert_close(shifted, weights)
    torch.testing.assert_close(slope.sum(2), torch.zeros(size[:2]).double(), rtol=0, atol=1e-12)


@given(sizes)
def test_samples_do_not_see_each_other(backend: str, size: tuple[int, int, int, int]) -> None:
    problem = graph_fusion_problem(graph_fusion, size, F64)
    row, seeds = torch.randperm(size[0]), seeds_for(problem)
    permuted = problem.changed(lambda leaf: leaf[row])
    for one, other in zip(
        solve(permuted, [seed[row] for seed in seeds]), solve(problem, seeds), strict=True
    ):
        assert_close(one, other[row])


@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_vertices(kernels: str, dtype: torch.dtype) -> None:
    vertices = torch.zeros(2, 3, 5, dtype=dtype)
    vertices[0, 0, 0], vertices[0, 1, 1], vertices[1] = 1e4, -1e4, 6e4
    leaves = {"vertices": vertices, "importance": torch.ones(2, 3, dtype=dtype)}
    problem = Problem(fusion_edge_weights, leaves, {"edges": [(0, 1), (0, 2), (1, 2)]})
    seeds = [torch.tensor([[1.0, 0.0, 0.0]]).expand(2, 3)]
    for result in solve(problem, seeds):
        assert result.isfinite().all()


def test_edges(backend: str) -> None:
    problem = graph_fusion_problem(fusion_edge_weights, (3, 4, 5, 1), F64)
    pairs = [(0, 0), (3, 1), (1, 3)]
    (wanted,) = problem.put(edges=pairs).outputs()
    assert_close(wanted[:, 1], wanted[:, 2])
    assert_close(problem.put(edges=torch.tensor(pairs)).outputs()[0], wanted)
    assert problem.put(edges=[]).outputs()[0].shape == (3, 0)
    vertices, importance = problem.leaves.values()
    fused, _ = graph_fusion(vertices, importance, [], vertices.new_empty(3, 0, 2))
    assert (fused == 0).all()


@pytest.mark.parametrize("index", [0, 1])
def test_only_one_of_the_results_is_used(backend: str, index: int) -> None:
    problem = graph_fusion_problem(graph_fusion, (3, 3, 4, 2), F64)

    def grads() -> list[torch.Tensor]:
        leaves = list(problem.differentiable().leaves.values())
        total = problem.put(**dict(zip(problem.leaves, leaves, strict=True))).outputs()[index]
        found = torch.autograd.grad(total.square().sum(), leaves, allow_unused=True)
        return [torch.zeros(()) if grad is None else grad for grad in found]

    actual = grads()
    with fastmtl.use_backend("reference"):
        wanted = grads()
    for one, other in zip(actual, wanted, strict=True):
        assert_close(one, other.double())


V, W, E = torch.ones(2, 3, 4), torch.ones(2, 3), torch.ones(2, 1, 5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((V[0], W, [(0, 1)], E), ValueError, r"vertices: expected shape \(B, P, D\)"),
        ((V[:, :, :0], W, [(0, 1)], E), ValueError, "vertices: .* D >= 1"),
        ((V, W[:, :2], [(0, 1)], E), ValueError, "importance: expected one value a vertex"),
        ((V, W.double(), [(0, 1)], E), TypeError, "importance: expected the dtype of vertices"),
        ((V, W, [(0, 3)], E), ValueError, r"edges: expected indices from 0 to 2, got \(0, 3\)"),
        ((V, W, None, E), TypeError, "edges: expected pairs of vertex indices, got None"),
        ((V, W, [(-1, 1)], E), ValueError, "edges: expected indices"),
        ((V, W, torch.tensor([[0, 5]]), E), ValueError, "edges: expected indices"),
        ((V, W, torch.tensor([0, 1]), E), ValueError, "edges: expected int64 pairs"),
        ((V, W, [(0, 1, 2)], E), ValueError, "edges"),
        ((V, W, [(0, 1), (1, 2)], E), ValueError, "edge_vertices: .* B = 2 and E = 2"),
        ((V, W, [(0, 1)], E.double()), TypeError, "edge_vertices: expected the dtype"),
        ((V, W, [(0, 1)], E, 0), ValueError, "theta: expected a finite number > 0, got 0"),
        ((V, W, [(0, 1)], E, "x"), TypeError, "theta: expected a number"),
    ],
)
def test_wrong_arguments(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        graph_fusion(*arguments)


@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.vmap])
def test_edges_seen_first_in_a_transform(backend: str, transform: Any) -> None:
    """They are remembered, and what was made inside a transform is of no use outside."""
    edges = [(0, 1), (0, 1), (1, 2)] if transform is torch.func.grad else [(0, 1), (0, 1), (0, 1)]
    vertices, importance = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 3)

    def total(vertices: Tensor, importance: Tensor) -> Tensor:
        return fusion_edge_weights(vertices, importance, edges).sum()

    plain = vertices[0], importance[0]
    transform(total)(*((vertices, importance) if transform is torch.func.vmap else plain))
    assert_close(total(*plain), 2 * torch.ones(()))
