"""Graph fusion in Triton: all dot products of a sample's vertices, then its edges."""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastmtl.backends.precision import accumulation_dtype
from fastmtl.backends.triton.formulas import device_of, halves, real
from fastmtl.backends.triton.graph_fusion_edges import edge_gradient, weigh_edges

_PRODUCTS = 8192  # elements of a tile of products


def fusion_edge_weights_forward(
    vertices: Tensor,  # (B, P, D)
    importance: Tensor,  # (B, P)
    edges: Tensor,  # (E, 2)
    theta: float,
) -> tuple[Tensor, Tensor]:
    _, weights, stats = _forward(vertices, importance, None, edges, theta)
    return weights, stats


def graph_fusion_forward(
    vertices: Tensor,  # (B, P, D)
    importance: Tensor,  # (B, P)
    edge_vertices: Tensor,  # (B, E, D')
    edges: Tensor,  # (E, 2)
    theta: float,
) -> tuple[Tensor, Tensor, Tensor]:
    fused, weights, stats = _forward(vertices, importance, edge_vertices, edges, theta)
    assert fused is not None
    return fused, weights, stats


def fusion_edge_weights_backward(
    grad_weights: Tensor,  # (B, E)
    stats: Tensor,  # (B, E + 2P)
    vertices: Tensor,  # (B, P, D)
    importance: Tensor,  # (B, P)
    edges: Tensor,  # (E, 2)
    theta: float,
) -> tuple[Tensor, Tensor]:
    grad_vertices, grad_importance, _ = _backward(
        None, grad_weights, stats, vertices, importance, None, edges, theta
    )
    return grad_vertices, grad_importance


def graph_fusion_backward(
    grad_fused: Tensor | None,  # (B, D')
    grad_weights: Tensor | None,  # (B, E)
    stats: Tensor,  # (B, E + 2P)
    vertices: Tensor,  # (B, P, D)
    importance: Tensor,  # (B, P)
    edge_vertices: Tensor,  # (B, E, D')
    edges: Tensor,  # (E, 2)
    theta: float,
) -> tuple[Tensor, Tensor, Tensor | None]:
    fused = None if grad_fused is None else edge_vertices
    return _backward(grad_fused, grad_weights, stats, vertices, importance, fused, edges, theta)


def _forward(
    vertices: Tensor, importance: Tensor, edge_vertices: Tensor | None, edges: Tensor, theta: float
) -> tuple[Tensor | None, Tensor, Tensor]:
    batch, count, features = vertices.shape
    dtype = accumulation_dtype(vertices.dtype)
    weights = vertices.new_empty(batch, len(edges))
    stats = vertices.new_empty(batch, len(edges) + 2 * count, dtype=dtype)
    pairs = vertices.new_empty(batch, count, count, dtype=dtype)
    fused, width = None, 0
    if edge_vertices is not None:
        edge_vertices = edge_vertices.contiguous()
        width = edge_vertices.shape[2]
        fused = edge_vertices.new_empty(batch, width)
    if batch:
        padded = _padded(count)
        block = min(_padded(features), max(_PRODUCTS // padded**2, 1))
        padded_edges = _padded(len(edges))
        with device_of(vertices, importance, edge_vertices):
            _multiply_pairs[batch,](
                *(vertices.contiguous(), pairs, stats, count, features, len(edges)),
                *(real(vertices), padded, block),
            )
            weigh_edges[batch,](
                *(importance.contiguous(), _on_device(edges, vertices.device), pairs, stats),
                *(weights, edge_vertices, fused, count, len(edges), width, *halves(theta)),
                *(real(vertices), padded_edges, _columns(padded_edges, width)),
            )
    return fused, weights, stats


def _backward(
    grad_fused: Tensor | None,
    grad_weights: Tensor | None,
    stats: Tensor,
    vertices: Tensor,
    importance: Tensor,
    edge_vertices: Tensor | None,
    edges: Tensor,
    theta: float,
) -> tuple[Tensor, Tensor, Tensor | None]:
    vertices, importance = vertices.contiguous(), importance.contiguous()
    batch, count, features = vertices.shape
    grad_vertices, grad_importance = torch.empty_like(vertices), torch.empty_like(importance)
    cross, own = stats.new_empty(batch, len(edges)), stats.new_empty(batch, count)
    grad_edge_vertices = None
    width = 0
    if edge_vertices is not None and grad_fused is not None:
        edge_vertices, grad_fused = edge_vertices.contiguous(), grad_fused.contiguous()
        grad_edge_vertices = torch.empty_like(edge_vertices)
        width = edge_vertices.shape[2]
    if batch:
        padded = _padded(count)
        padded_edges = _padded(len(edges))
        block = min(_padded(features), max(_PRODUCTS // padded, 1))
        edges = _on_device(edges, vertices.device)
        with device_of(vertices, importance, edge_vertices):
            edge_gradient[batch,](
                *(importance, edges, stats, edge_vertices, grad_fused),
                None if grad_weights is None else grad_weights.contiguous(),
                *(grad_edge_vertices, grad_importance, cross, own, count, len(edges), width),
                *(*halves(theta), real(vertices), padded, padded_edges),
                _columns(padded_edges, width),
            )
            _vertex_gradient[batch, triton.cdiv(features, block)](
                *(vertices, edges, stats, cross, own, grad_vertices, count, features, len(edges)),
                *(real(vertices), padded, block),
            )
    return grad_vertices, grad_importance, grad_edge_vertices


def _on_device(edges: Tensor, device: torch.device) -> Tensor:
    """The edges on a device; copied there once, so that no later call waits for a copy."""
    return _copied(tuple(edges.flatten().tolist()), device)


@lru_cache(maxsize=256)
def _copied(ends: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(ends, dtype=torch.int32).view(-1, 2).to(device)


def _padded(count: int) -> int:
    """Lanes for so many values: Triton's ranges are powers of two."""
    return int(triton.next_power_of_2(max(count, 1)))


def _columns(rows: int, width: int) -> int:
    """Columns of a tile of edge vertices."""
    return min(_padded(width), max(_PRODUCTS // rows, 1))


@triton.jit
def _multiply_pairs(
    vertices,  # (B, P, D)
    pairs,  # (B, P, P)
    stats,  # (B, E + 2P)
    count,
    features,
    edge_count,
    REAL: tl.constexpr,
    VERTICES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Dot products of the exponentials of a sample's vertices; fills the stats of vertices."""
    b = tl.program_id(0).to(tl.int64)
    p = tl.arange(0, VERTICES)
    rows = vertices + b * count * features + p.to(tl.int64)[:, None] * features
    largest = tl.full((VERTICES,), float("-inf"), REAL)
    for first in range(0, features, BLOCK):
        i = first + tl.arange(0, BLOCK)
        inside = (p < count)[:, None] & (i < features)[None, :]
        v = tl.load(rows + i[None, :], inside, float("-inf")).to(REAL)
        largest = tl.maximum(largest, tl.max(v, 1))
    shift = tl.where(p < count, largest, 0.0)
    products = tl.zeros((VERTICES, VERTICES), REAL)
    for first in range(0, features, BLOCK):
        i = first + tl.arange(0, BLOCK)
        inside = (p < count)[:, None] & (i < features)[None, :]
        v = tl.load(rows + i[None, :], inside, 0.0).to(REAL)
        u = tl.where(inside, tl.exp(v - shift[:, None]), 0.0)
        products += tl.sum(u[:, None, :] * u[None, :, :], 2)
    known = (p < count)[:, None] & (p < count)[None, :]
    tl.store(pairs + b * count * count + p[:, None] * count + p[None, :], products, known)
    squares = tl.sum(tl.where(p[:, None] == p[None, :], products, 0.0), 1)
    of_vertices = stats + b * (edge_count + 2 * count) + edge_count
    # Triton 3.6 does not compile a store of `largest` itself in float32.
    tl.store(of_vertices + p, shift, p < count)
    tl.store(of_vertices + count + p, squares, p < count)


@triton.jit
def _vertex_gradient(
    vertices,  # (B, P, D)
    edges,  # (E, 2)
    stats,  # (B, E + 2P)
    cross,  # (B, E)
    own,  # (B, P)
    grad_vertices,  # (B, P, D)
    count,
    features,
    edge_count,
    REAL: tl.constexpr,
    VERTICES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """u_p (sum over p's edges of cross u_other - own u_p), for some columns of a sample."""
    sample = tl.program_id(0).to(tl.int64)
    p = tl.arange(0, VERTICES)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = (p < count)[:, None] & (i < features)[None, :]
    index = sample * count * features + p.to(tl.int64)[:, None] * features + i[None, :]
    largest = stats + sample * (edge_count + 2 * count) + edge_count
    v = tl.load(vertices + index, inside, 0.0).to(REAL)
    u = tl.exp(v - tl.load(largest + p, p < count, 0.0)[:, None])
    total = -u * tl.load(own + sample * count + p, p < count, 0.0)[:, None]
    for e in range(edge_count):
        a = tl.load(edges + 2 * e)
        b = tl.load(edges + 2 * e + 1)
        factor = tl.load(cross + sample * edge_count + e)
        of_a = tl.sum(tl.where((p == a)[:, None], u, 0.0), 0)
        of_b = tl.sum(tl.where((p == b)[:, None], u, 0.0), 0)
        total += tl.where((p == a)[:, None], factor * of_b[None, :], 0.0)
        total += tl.where((p == b)[:, None], factor * of_a[None, :], 0.0)
    tl.store(grad_vertices + index, (total * u).to(grad_vertices.dtype.element_ty), inside)
