"""Graph fusion, by the native kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl.backends import reference
from fastmtl.backends.native import memory
from fastmtl.backends.reference import accumulation_dtype

# Of csrc/cuda/graph_fusion.cu.
_MOST_EDGES, _MOST_VERTICES = 512, 64


def fusion_edge_weights_forward(
    vertices: Tensor,  # (B, P, D)
    importance: Tensor,  # (B, P)
    edges: Tensor,  # (E, 2)
    theta: float,
) -> tuple[Tensor, Tensor]:
    if _too_large(vertices, edges):
        return reference.fusion_edge_weights_forward(vertices, importance, edges, theta)
    vertices, importance = vertices.contiguous(), importance.contiguous()
    weights, stats = _fusion_results(vertices, edges)
    memory.module(vertices).graph_fusion_forward(
        *_graph(vertices, importance, edges, None, theta),
        weights.data_ptr(),
        0,
        stats.data_ptr(),
    )
    return weights, stats


def graph_fusion_forward(
    vertices: Tensor,  # (B, P, D)
    importance: Tensor,  # (B, P)
    edges: Tensor,  # (E, 2)
    edge_vertices: Tensor,  # (B, E, D')
    theta: float,
) -> tuple[Tensor, Tensor, Tensor]:
    if _too_large(vertices, edges):
        return reference.graph_fusion_forward(vertices, importance, edges, edge_vertices, theta)
    vertices, importance = vertices.contiguous(), importance.contiguous()
    edge_vertices = edge_vertices.contiguous()
    weights, stats = _fusion_results(vertices, edges)
    fused = edge_vertices.new_empty(edge_vertices.shape[0], edge_vertices.shape[2])
    memory.module(vertices).graph_fusion_forward(
        *_graph(vertices, importance, edges, edge_vertices, theta),
        weights.data_ptr(),
        fused.data_ptr(),
        stats.data_ptr(),
    )
    return fused, weights, stats


def fusion_edge_weights_backward(
    grad_weights: Tensor,  # (B, E)
    stats: Tensor,  # (B, E + 2P)
    vertices: Tensor,  # (B, P, D)
    importance: Tensor,  # (B, P)
    edges: Tensor,  # (E, 2)
    theta: float,
) -> tuple[Tensor, Tensor]:
    if _too_large(vertices, edges):
        return reference.fusion_edge_weights_backward(
            grad_weights, stats, vertices, importance, edges, theta
        )
    vertices, importance = vertices.contiguous(), importance.contiguous()
    grad_weights = grad_weights.contiguous()
    grad_vertices, grad_importance = torch.empty_like(vertices), torch.empty_like(importance)
    memory.module(vertices).graph_fusion_backward(
        *_graph(vertices, importance, edges, None, theta),
        stats.data_ptr(),
        grad_weights.data_ptr(),
        0,
        grad_vertices.data_ptr(),
        grad_importance.data_ptr(),
        0,
    )
    return grad_vertices, grad_importance


def graph_fusion_backward(
    grad_fused: Tensor,  # (B, D')
    grad_weights: Tensor | None,  # (B, E)
    stats: Tensor,  # (B, E + 2P)
    vertices: Tensor,  # (B, P, D)
    importance: Tensor,  # (B, P)
    edges: Tensor,  # (E, 2)
    edge_vertices: Tensor,  # (B, E, D')
    theta: float,
) -> tuple[Tensor, Tensor, Tensor]:
    if _too_large(vertices, edges):
        return reference.graph_fusion_backward(
            grad_fused, grad_weights, stats, vertices, importance, edges, edge_vertices, theta
        )
    vertices, importance = vertices.contiguous(), importance.contiguous()
    edge_vertices, grad_fused = edge_vertices.contiguous(), grad_fused.contiguous()
    grad_weights = None if grad_weights is None else grad_weights.contiguous()
    grad_vertices, grad_importance = torch.empty_like(vertices), torch.empty_like(importance)
    grad_edge_vertices = torch.empty_like(edge_vertices)
    memory.module(vertices).graph_fusion_backward(
        *_graph(vertices, importance, edges, edge_vertices, theta),
        stats.data_ptr(),
        memory.address(grad_weights),
        grad_fused.data_ptr(),
        grad_vertices.data_ptr(),
        grad_importance.data_ptr(),
        grad_edge_vertices.data_ptr(),
    )
    return grad_vertices, grad_importance, grad_edge_vertices


def _fusion_results(vertices: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    batch, count, _ = vertices.shape
    weights = vertices.new_empty(batch, edges.shape[0])
    columns = edges.shape[0] + 2 * count
    return weights, vertices.new_empty(batch, columns, dtype=accumulation_dtype(vertices.dtype))


def _graph(
    vertices: Tensor, importance: Tensor, edges: Tensor, edge_vertices: Tensor | None, theta: float
) -> tuple[int | float, ...]:
    return (
        memory.execution(vertices),
        memory.DTYPES[vertices.dtype],
        vertices.data_ptr(),
        importance.data_ptr(),
        edges.data_ptr(),
        memory.address(edge_vertices),
        *vertices.shape,
        edges.shape[0],
        0 if edge_vertices is None else edge_vertices.shape[2],
        theta,
    )


def _too_large(vertices: Tensor, edges: Tensor) -> bool:
    """Whether a graph is larger than the CUDA kernels take."""
    large = edges.shape[0] > _MOST_EDGES or vertices.shape[1] > _MOST_VERTICES
    return large and vertices.is_cuda
