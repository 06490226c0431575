"""Graph fusion, by the native kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl.backends.native import memory
from fastmtl.backends.precision import accumulation_dtype
from fastmtl.backends.reference import graph_fusion as reference


def fusion_edge_weights_forward(
    vertices: Tensor,  # (B, P, D)
    importance: Tensor,  # (B, P)
    edges: Tensor,  # (E, 2)
    theta: float,
) -> tuple[Tensor, Tensor]:
    if _too_large(vertices, edges):
        return reference.fusion_edge_weights_forward(vertices, importance, edges, theta)
    _, weights, stats = _forward(vertices, importance, None, edges, theta)
    return weights, stats


def graph_fusion_forward(
    vertices: Tensor,  # (B, P, D)
    importance: Tensor,  # (B, P)
    edge_vertices: Tensor,  # (B, E, D')
    edges: Tensor,  # (E, 2)
    theta: float,
) -> tuple[Tensor, Tensor, Tensor]:
    if _too_large(vertices, edges):
        return reference.graph_fusion_forward(vertices, importance, edge_vertices, edges, theta)
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
    arguments = (grad_weights, stats, vertices, importance)
    if _too_large(vertices, edges):
        return reference.fusion_edge_weights_backward(*arguments, edges, theta)
    grad_vertices, grad_importance, _ = _backward(None, *arguments, None, edges, theta)
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
    if _too_large(vertices, edges):
        return reference.graph_fusion_backward(
            grad_fused, grad_weights, stats, vertices, importance, edge_vertices, edges, theta
        )
    fused = None if grad_fused is None else edge_vertices
    return _backward(grad_fused, grad_weights, stats, vertices, importance, fused, edges, theta)


def _forward(
    vertices: Tensor, importance: Tensor, edge_vertices: Tensor | None, edges: Tensor, theta: float
) -> tuple[Tensor | None, Tensor, Tensor]:
    """The fused vector where there are edge vertices, the weights and the statistics."""
    vertices, importance = vertices.contiguous(), importance.contiguous()
    batch, count, _ = vertices.shape
    fused = None
    if edge_vertices is not None:
        edge_vertices = edge_vertices.contiguous()
        fused = vertices.new_empty(batch, edge_vertices.shape[2])
    weights = vertices.new_empty(batch, edges.shape[0])
    columns = edges.shape[0] + 2 * count
    stats = vertices.new_empty(batch, columns, dtype=accumulation_dtype(vertices.dtype))
    memory.module(vertices).graph_fusion_forward(
        *_graph(vertices, importance, edge_vertices, edges, theta),
        weights.data_ptr(),
        memory.address(fused),
        stats.data_ptr(),
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
    """The gradients of the vertices, the importance and the edge vertices, if there are any."""
    vertices, importance = vertices.contiguous(), importance.contiguous()
    grad_weights = None if grad_weights is None else grad_weights.contiguous()
    grad_vertices, grad_importance = torch.empty_like(vertices), torch.empty_like(importance)
    grad_edge_vertices = None
    if edge_vertices is not None and grad_fused is not None:
        edge_vertices, grad_fused = edge_vertices.contiguous(), grad_fused.contiguous()
        grad_edge_vertices = torch.empty_like(edge_vertices)
    memory.module(vertices).graph_fusion_backward(
        *_graph(vertices, importance, edge_vertices, edges, theta),
        stats.data_ptr(),
        memory.address(grad_weights),
        memory.address(grad_fused),
        grad_vertices.data_ptr(),
        grad_importance.data_ptr(),
        memory.address(grad_edge_vertices),
    )
    return grad_vertices, grad_importance, grad_edge_vertices


def _graph(
    vertices: Tensor, importance: Tensor, edge_vertices: Tensor | None, edges: Tensor, theta: float
) -> tuple[memory.Argument, ...]:
    """What all calls begin with."""
    return (
        memory.execution(vertices),
        memory.DTYPES[vertices.dtype],
        memory.address(vertices),
        memory.address(importance),
        edges.data_ptr(),
        memory.address(edge_vertices),
        *vertices.shape,
        edges.shape[0],
        0 if edge_vertices is None else edge_vertices.shape[2],
        theta,
    )


def _too_large(vertices: Tensor, edges: Tensor) -> bool:
    """Whether the kernels for the device take no graph of this size."""
    many_edges = edges.shape[0] > memory.limit(vertices, "graph_fusion_edges")
    return many_edges or vertices.shape[1] > memory.limit(vertices, "graph_fusion_vertices")
