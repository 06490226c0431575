from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fastmtl
from fastmtl.backends.reference import graph_fusion as reference
from fastmtl.ops import fusion_edge_weights, graph_fusion
from tests.tolerances import assert_close

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
# B, P, D, D'
SIZES = [
    (5, 3, 16, 8),
    (1, 2, 1, 1),
    (40, 6, 33, 65),
    (17, 4, 128, 7),
    (0, 3, 4, 4),
    (2, 12, 70, 5),
]


def problem(sizes: tuple[int, int, int, int], dtype: torch.dtype) -> tuple[Any, ...]:
    batch, count, features, width = sizes
    edges = list(combinations(range(count), 2))
    vertices = torch.randn(batch, count, features).to(dtype)
    importance = torch.randn(batch, count).to(dtype)
    return vertices, importance, edges, torch.randn(batch, len(edges), width).to(dtype)


def derivatives(outputs: Any, tensors: list[Tensor], seeds: list[Tensor]) -> list[Tensor]:
    total = sum((out.double() * seed).sum() for out, seed in zip(outputs, seeds, strict=True))
    return list(torch.autograd.grad(total, tensors))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES)
def test_agrees_with_float64(
    backend: str, sizes: tuple[int, int, int, int], dtype: torch.dtype
) -> None:
    vertices, importance, edges, edge_vertices = problem(sizes, dtype)
    seeds = [torch.randn(sizes[0], sizes[3]).double(), torch.randn(sizes[0], len(edges)).double()]

    def run(dtype: torch.dtype) -> list[Tensor]:
        v, w, e = (x.to(dtype).requires_grad_() for x in (vertices, importance, edge_vertices))
        fused, weights = graph_fusion(v, w, edges, e)
        alone = fusion_edge_weights(v, w, edges)
        assert fused.dtype == weights.dtype == alone.dtype == dtype
        return [
            fused,
            weights,
            alone,
            *derivatives([fused, weights], [v, w, e], seeds),
            *derivatives([alone], [v, w], seeds[1:]),
        ]

    actual = run(dtype)
    with fastmtl.use_backend("reference"):
        wanted = run(torch.float64)
    for one, other in zip(actual, wanted, strict=True):
        # Cosines near 1 differ by little, and their gradients cancel.
        assert_close(one, other, dtype, scale=2)


def test_definition(backend: str) -> None:
    vertices, importance, edges, edge_vertices = problem((4, 3, 10, 6), torch.float64)
    p = torch.softmax(vertices, 2)
    q = torch.stack(
        [
            (importance[:, a] + importance[:, b])
            / (torch.nn.functional.cosine_similarity(p[:, a], p[:, b], dim=1) + 0.7)
            for a, b in edges
        ],
        1,
    )
    fused, weights = graph_fusion(vertices, importance, edges, edge_vertices, 0.7)
    assert_close(weights, torch.softmax(q, 1))
    assert_close(fused, (torch.softmax(q, 1)[:, :, None] * edge_vertices).sum(1))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(2, 6), st.integers(1, 50), st.integers(0, 1000))
def test_properties(batch: int, count: int, features: int, seed: int) -> None:
    torch.manual_seed(seed)
    vertices, importance, edges, edge_vertices = problem((batch, count, features, 3), torch.float64)
    fused, weights = graph_fusion(vertices, importance, edges, edge_vertices)
    assert_close(weights.sum(1), torch.ones(batch))
    order = torch.randperm(len(edges))
    shuffled = [edges[k][::-1] for k in order]
    again, permuted = graph_fusion(vertices, importance, shuffled, edge_vertices[:, order])
    assert_close(permuted, weights[:, order])
    assert_close(again, fused)
    shift = torch.randn(batch, count, 1)
    assert_close(fusion_edge_weights(vertices + shift, importance, edges), weights)


@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_vertices(backend: str, dtype: torch.dtype) -> None:
    vertices = torch.zeros(2, 3, 5, dtype=dtype)
    vertices[0, 0, 0], vertices[0, 1, 1], vertices[1] = 1e4, -1e4, 6e4
    v, w = vertices.requires_grad_(), torch.ones(2, 3, dtype=dtype, requires_grad=True)
    weights = fusion_edge_weights(v, w, [(0, 1), (0, 2), (1, 2)])
    weights[:, 0].sum().backward()
    assert weights.isfinite().all()
    assert v.grad is not None
    assert v.grad.isfinite().all()
    assert w.grad is not None
    assert w.grad.isfinite().all()


def test_edges(backend: str) -> None:
    vertices, importance, _, _ = problem((3, 4, 5, 1), torch.float64)
    pairs = [(0, 0), (3, 1), (1, 3)]
    wanted = fusion_edge_weights(vertices, importance, pairs)
    assert_close(wanted[:, 1], wanted[:, 2])
    assert_close(fusion_edge_weights(vertices, importance, torch.tensor(pairs)), wanted)
    none = fusion_edge_weights(vertices, importance, [])
    assert none.shape == (3, 0)
    fused, _ = graph_fusion(vertices, importance, [], vertices.new_empty(3, 0, 2))
    assert (fused == 0).all()


def test_strides(backend: str) -> None:
    vertices, importance, edges, edge_vertices = problem((6, 3, 10, 4), torch.float32)
    strided = (
        vertices.permute(2, 1, 0).contiguous().permute(2, 1, 0),
        importance.T.contiguous().T,
        edges,
        torch.cat([edge_vertices, edge_vertices], 2)[:, :, :4],
    )
    for one, other in zip(
        graph_fusion(*strided),
        graph_fusion(vertices, importance, edges, edge_vertices),
        strict=True,
    ):
        assert_close(one, other)


def test_gradcheck(backend: str) -> None:
    vertices, importance, edges, edge_vertices = problem((2, 3, 4, 2), torch.float64)
    tensors = [x.requires_grad_() for x in (vertices, importance, edge_vertices)]
    torch.autograd.gradcheck(lambda v, w, e: graph_fusion(v, w, edges, e, 0.3), tensors)
    torch.autograd.gradcheck(lambda v, w: fusion_edge_weights(v, w, edges), tensors[:2])


def test_only_one_of_the_results_is_used(backend: str) -> None:
    vertices, importance, edges, edge_vertices = problem((3, 3, 4, 2), torch.float64)
    tensors = [x.requires_grad_() for x in (vertices, importance, edge_vertices)]
    for index in (0, 1):
        actual = torch.autograd.grad(
            graph_fusion(*tensors[:2], edges, tensors[2])[index].square().sum(),
            tensors,
            allow_unused=True,
        )
        with fastmtl.use_backend("reference"):
            wanted = torch.autograd.grad(
                graph_fusion(*tensors[:2], edges, tensors[2])[index].square().sum(),
                tensors,
                allow_unused=True,
            )
        for one, other in zip(actual, wanted, strict=True):
            zero = torch.zeros(())
            assert_close(zero if one is None else one, (zero if other is None else other).double())


def test_backward_twice_gives_the_same_gradient(backend: str) -> None:
    vertices, importance, edges, edge_vertices = problem((3, 3, 4, 2), torch.float32)
    fused, _ = graph_fusion(vertices.requires_grad_(), importance, edges, edge_vertices)
    first = torch.autograd.grad(fused.sum(), vertices, retain_graph=True)[0]
    torch.testing.assert_close(first, torch.autograd.grad(fused.sum(), vertices)[0], rtol=0, atol=0)


def test_closed_form_of_the_reference_is_its_derivative() -> None:
    vertices, importance, edges, edge_vertices = problem((3, 4, 5, 2), torch.float64)
    pairs, tensors = torch.tensor(edges), [vertices, importance, edge_vertices]
    seeds = [torch.randn(3, 2).double(), torch.randn(3, len(edges)).double()]
    _, _, stats = reference.graph_fusion_forward(vertices, importance, edge_vertices, pairs, 0.5)
    closed = reference.graph_fusion_backward(
        *seeds, stats, vertices, importance, edge_vertices, pairs, 0.5
    )
    outputs = reference.graph_fusion(
        vertices.requires_grad_(),
        importance.requires_grad_(),
        edge_vertices.requires_grad_(),
        pairs,
        0.5,
    )
    for one, other in zip(closed, derivatives(outputs, tensors, seeds), strict=True):
        assert_close(one.detach(), other)


def test_registered_ops(backend: str) -> None:
    vertices, importance, edges, edge_vertices = problem((2, 3, 4, 2), torch.float64)
    tensors = [x.requires_grad_() for x in (vertices, importance, edge_vertices)]
    pairs = torch.tensor(edges)
    torch.library.opcheck(torch.ops.fastmtl.graph_fusion.default, (*tensors, pairs, 0.5))
    torch.library.opcheck(torch.ops.fastmtl.fusion_edge_weights.default, (*tensors[:2], pairs, 0.5))


def test_compiled(backend: str) -> None:
    vertices, importance, edges, edge_vertices = problem((4, 3, 8, 2), torch.float32)

    def loss(v: Tensor) -> Tensor:
        fused, weights = graph_fusion(v, importance, edges, edge_vertices)
        return fused.sum() + weights[:, 0].sum()

    vertices.requires_grad_()
    (wanted,) = torch.autograd.grad(loss(vertices), vertices)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    (actual,) = torch.autograd.grad(compiled(vertices), vertices)
    assert_close(actual, wanted.double())


def test_autocast(backend: str) -> None:
    vertices, importance, edges, edge_vertices = problem((4, 3, 8, 2), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        fused, _ = graph_fusion(vertices, importance.bfloat16(), edges, edge_vertices.bfloat16())
    assert fused.dtype == torch.float32


V, W, E = torch.ones(2, 3, 4), torch.ones(2, 3), torch.ones(2, 1, 5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((V[0], W, [(0, 1)], E), ValueError, r"vertices: expected shape \(B, P, D\)"),
        ((V[:, :, :0], W, [(0, 1)], E), ValueError, "vertices: .* D >= 1"),
        ((V, W[:, :2], [(0, 1)], E), ValueError, "importance: expected one value a vertex"),
        ((V, W.double(), [(0, 1)], E), TypeError, "importance: expected the dtype of vertices"),
        ((V, W, [(0, 3)], E), ValueError, "edges: expected indices from 0 to 2, got 0 to 3"),
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
