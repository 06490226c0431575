"""The edges of graph fusion in Triton: a program has all edges of a sample."""

from __future__ import annotations

import triton
import triton.language as tl

from fastmtl.backends.triton.formulas import joined


@triton.jit
def _softmax_of_ratio(cosine, importance, a, b, theta, there):
    """Weights of the edges, and what their derivative needs."""
    both = tl.load(importance + a, there, 0.0).to(cosine.dtype)
    both += tl.load(importance + b, there, 0.0).to(cosine.dtype)
    ratio = tl.where(there, both / (cosine + theta), float("-inf"))
    exps = tl.where(there, tl.exp(ratio - tl.max(ratio, 0)), 0.0)
    return exps / tl.sum(exps, 0), both


@triton.jit
def weigh_edges(
    importance,  # (B, P)
    edges,  # (E, 2)
    pairs,  # (B, P, P)
    stats,  # (B, E + 2P)
    weights,  # (B, E)
    edge_vertices,  # (B, E, D') or None
    fused,  # (B, D') or None
    count,
    edge_count,
    width,
    theta_high,
    theta_low,
    REAL: tl.constexpr,
    EDGES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Cosines, edge weights and the fused vector of a sample."""
    sample = tl.program_id(0).to(tl.int64)
    e = tl.arange(0, EDGES)
    there = e < edge_count
    a = tl.load(edges + 2 * e, there, 0)
    b = tl.load(edges + 2 * e + 1, there, 0)
    products = pairs + sample * count * count
    squares = tl.load(products + a * count + a, there, 1.0)
    squares *= tl.load(products + b * count + b, there, 1.0)
    cosine = tl.load(products + a * count + b, there, 0.0) / tl.sqrt(squares)
    theta = joined(theta_high, theta_low, REAL)
    weight, _ = _softmax_of_ratio(cosine, importance + sample * count, a, b, theta, there)
    tl.store(stats + sample * (edge_count + 2 * count) + e, cosine, there)
    tl.store(weights + sample * edge_count + e, weight.to(weights.dtype.element_ty), there)
    if fused is not None:
        weight = tl.where(there, weight, 0.0)
        rows = edge_vertices + (sample * edge_count + e)[:, None] * width
        for first in range(0, width, COLUMNS):
            i = first + tl.arange(0, COLUMNS)
            v = tl.load(rows + i[None, :], there[:, None] & (i < width)[None, :], 0.0).to(REAL)
            total = tl.sum(weight[:, None] * v, 0)
            tl.store(fused + sample * width + i, total.to(fused.dtype.element_ty), i < width)


@triton.jit
def edge_gradient(
    importance,  # (B, P)
    edges,  # (E, 2)
    stats,  # (B, E + 2P)
    edge_vertices,  # (B, E, D') or None
    grad_fused,  # (B, D') or None
    grad_weights,  # (B, E) or None
    grad_edge_vertices,  # (B, E, D') or None
    grad_importance,  # (B, P)
    cross,  # (B, E): how much u_a there is in the gradient of u_b, and the other way round
    own,  # (B, P): how much -u_p there is in that of u_p
    count,
    edge_count,
    width,
    theta_high,
    theta_low,
    REAL: tl.constexpr,
    VERTICES: tl.constexpr,
    EDGES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Gradients of importances and edge vertices, and what that of vertices is mixed of."""
    sample = tl.program_id(0).to(tl.int64)
    e = tl.arange(0, EDGES)
    there = e < edge_count
    a = tl.load(edges + 2 * e, there, 0)
    b = tl.load(edges + 2 * e + 1, there, 0)
    of_sample = stats + sample * (edge_count + 2 * count)
    cosine = tl.load(of_sample + e, there, 0.0)
    theta = joined(theta_high, theta_low, REAL)
    weight, both = _softmax_of_ratio(cosine, importance + sample * count, a, b, theta, there)
    weight = tl.where(there, weight, 0.0)

    grad = cosine * 0
    if grad_weights is not None:
        grad += tl.load(grad_weights + sample * edge_count + e, there, 0.0).to(REAL)
    if grad_edge_vertices is not None:
        row = (sample * edge_count + e)[:, None] * width
        for first in range(0, width, COLUMNS):
            i = first + tl.arange(0, COLUMNS)
            inside = there[:, None] & (i < width)[None, :]
            g = tl.load(grad_fused + sample * width + i, i < width, 0.0).to(REAL)
            v = tl.load(edge_vertices + row + i[None, :], inside, 0.0).to(REAL)
            grad += tl.sum(v * g[None, :], 1)
            part = (weight[:, None] * g[None, :]).to(grad_edge_vertices.dtype.element_ty)
            tl.store(grad_edge_vertices + row + i[None, :], part, inside)

    mean = tl.sum(weight * grad, 0)
    ratio = tl.where(there, weight * (grad - mean) / (cosine + theta), 0.0)
    slope = -ratio * both / (cosine + theta)
    of_vertices = of_sample + edge_count + count
    square = tl.load(of_vertices + a, there, 1.0) * tl.load(of_vertices + b, there, 1.0)
    tl.store(cross + sample * edge_count + e, slope / tl.sqrt(square), there)
    p = tl.arange(0, VERTICES)
    ends = (p[:, None] == a[None, :]).to(REAL) + (p[:, None] == b[None, :]).to(REAL)
    total = tl.sum(ends * ratio[None, :], 1).to(grad_importance.dtype.element_ty)
    tl.store(grad_importance + sample * count + p, total, p < count)
    total = tl.sum(ends * (slope * cosine)[None, :], 1)
    total /= tl.load(of_vertices + p, p < count, 1.0)
    tl.store(own + sample * count + p, total, p < count)
