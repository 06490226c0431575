"""Edge weights of graph fusion and the fusion itself, in plain PyTorch.

For the edge (a, b): S = cos(softmax(V_a), softmax(V_b)), q = (w_a + w_b) / (S + theta), and the
weights are the softmax of q over the edges. The softmax normalisers cancel in the cosine, so with
u_a = exp(V_a - max V_a), S = <u_a, u_b> / (|u_a| |u_b|).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastmtl.backends.precision import accumulation_dtype


def fusion_edge_weights(
    vertices: Tensor,  # (B, P, D)
    importance: Tensor,  # (B, P)
    edges: Tensor,  # (E, 2)
    theta: float,
) -> Tensor:
    """The edge weights (B, E), as autograd differentiates them."""
    return _weights(vertices, importance, edges, theta).to(vertices.dtype)


def graph_fusion(
    vertices: Tensor,  # (B, P, D)
    importance: Tensor,  # (B, P)
    edge_vertices: Tensor,  # (B, E, D')
    edges: Tensor,  # (E, 2)
    theta: float,
) -> tuple[Tensor, Tensor]:
    """The fused vector (B, D') and the edge weights (B, E), as autograd differentiates them."""
    weights = _weights(vertices, importance, edges, theta)
    fused = (weights[:, :, None] * edge_vertices.to(weights.dtype)).sum(1)
    return fused.to(edge_vertices.dtype), weights.to(vertices.dtype)


def fusion_edge_weights_forward(
    vertices: Tensor, importance: Tensor, edges: Tensor, theta: float
) -> tuple[Tensor, Tensor]:
    """The weights (B, E) and what backward needs: stats (B, E + 2P), the cosine of every edge,
    then the maximum and the sum of squared exponentials of every vertex."""
    v = vertices.to(accumulation_dtype(vertices.dtype))
    stats = _statistics(v, edges)
    return _softmax_of_ratio(stats, importance, edges, theta).to(vertices.dtype), stats


def graph_fusion_forward(
    vertices: Tensor, importance: Tensor, edge_vertices: Tensor, edges: Tensor, theta: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The fused vector, the weights, and stats as in `fusion_edge_weights_forward`."""
    v = vertices.to(accumulation_dtype(vertices.dtype))
    stats = _statistics(v, edges)
    weights = _softmax_of_ratio(stats, importance, edges, theta)
    fused = (weights[:, :, None] * edge_vertices.to(weights.dtype)).sum(1)
    return fused.to(edge_vertices.dtype), weights.to(vertices.dtype), stats


def fusion_edge_weights_backward(
    grad_weights: Tensor,  # (B, E)
    stats: Tensor,  # (B, E + 2P)
    vertices: Tensor,  # (B, P, D)
    importance: Tensor,  # (B, P)
    edges: Tensor,  # (E, 2)
    theta: float,
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to the vertices and the importance."""
    weights = _softmax_of_ratio(stats, importance, edges, theta)
    return _edge_backward(
        grad_weights.to(stats.dtype), weights, stats, vertices, importance, edges, theta
    )


def graph_fusion_backward(
    grad_fused: Tensor | None,  # (B, D')
    grad_weights: Tensor | None,  # (B, E)
    stats: Tensor,  # (B, E + 2P)
    vertices: Tensor,  # (B, P, D)
    importance: Tensor,  # (B, P)
    edge_vertices: Tensor,  # (B, E, D')
    edges: Tensor,  # (E, 2)
    theta: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with respect to the vertices, the importance and the edge vertices; the last is
    None without `grad_fused`."""
    if grad_fused is None:
        none: Any = None
        assert grad_weights is not None
        grads = fusion_edge_weights_backward(
            grad_weights, stats, vertices, importance, edges, theta
        )
        return *grads, none
    weights = _softmax_of_ratio(stats, importance, edges, theta)
    g = grad_fused.to(stats.dtype)
    grad_edge_vertices = (weights[:, :, None] * g[:, None, :]).to(edge_vertices.dtype)
    total = (edge_vertices.to(stats.dtype) * g[:, None, :]).sum(2)
    if grad_weights is not None:
        total = total + grad_weights.to(stats.dtype)
    grad_v, grad_importance = _edge_backward(
        total, weights, stats, vertices, importance, edges, theta
    )
    return grad_v, grad_importance, grad_edge_vertices


def _weights(vertices: Tensor, importance: Tensor, edges: Tensor, theta: float) -> Tensor:
    dtype = accumulation_dtype(vertices.dtype)
    p = torch.softmax(vertices.to(dtype), dim=2)
    p = p / torch.linalg.vector_norm(p, dim=2, keepdim=True)
    a, b = edges.to(vertices.device).unbind(1)
    cosine = (p[:, a] * p[:, b]).sum(2)
    w = importance.to(dtype)
    return torch.softmax((w[:, a] + w[:, b]) / (cosine + theta), dim=1)


def _statistics(v: Tensor, edges: Tensor) -> Tensor:
    """stats (B, E + 2P); see `fusion_edge_weights_forward`."""
    maximum = v.amax(2)
    u = torch.exp(v - maximum[:, :, None])
    squares = (u * u).sum(2)
    a, b = edges.to(v.device).unbind(1)
    cosine = (u[:, a] * u[:, b]).sum(2) * torch.rsqrt(squares[:, a] * squares[:, b])
    return torch.cat([cosine, maximum, squares], 1)


def _softmax_of_ratio(stats: Tensor, importance: Tensor, edges: Tensor, theta: float) -> Tensor:
    a, b = edges.to(stats.device).unbind(1)
    w = importance.to(stats.dtype)
    return torch.softmax((w[:, a] + w[:, b]) / (stats[:, : len(edges)] + theta), dim=1)


def _edge_backward(
    grad: Tensor,  # (B, E)
    weights: Tensor,  # (B, E)
    stats: Tensor,
    vertices: Tensor,
    importance: Tensor,
    edges: Tensor,
    theta: float,
) -> tuple[Tensor, Tensor]:
    a, b = edges.to(stats.device).unbind(1)
    count, vertex_count = len(edges), vertices.shape[1]
    cosine, maximum, squares = stats.split([count, vertex_count, vertex_count], 1)
    w = importance.to(stats.dtype)

    grad_q = weights * (grad - (weights * grad).sum(1, keepdim=True))
    grad_sum = grad_q / (cosine + theta)
    zeros = torch.zeros_like(w)
    grad_w = zeros.index_add(1, a, grad_sum).index_add(1, b, grad_sum)

    grad_cosine = -grad_sum * (w[:, a] + w[:, b]) / (cosine + theta)
    u = torch.exp(vertices.to(stats.dtype) - maximum[:, :, None])
    cross = (grad_cosine * torch.rsqrt(squares[:, a] * squares[:, b]))[:, :, None]
    own = zeros.index_add(1, a, grad_cosine * cosine).index_add(1, b, grad_cosine * cosine)
    grad_u = -u * (own / squares)[:, :, None]
    grad_u = grad_u.index_add(1, a, cross * u[:, b]).index_add(1, b, cross * u[:, a])
    return (grad_u * u).to(vertices.dtype), grad_w.to(importance.dtype)
