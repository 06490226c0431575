"""Edge weights of graph fusion, and the weighted fusion of edge vertices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastmtl import backends
from fastmtl.backends import reference
from fastmtl.ops import _checks
from fastmtl.ops._autograd import once_differentiable
from fastmtl.ops._edges import Edges, as_edges, need_in_range


def fusion_edge_weights(
    vertices: Tensor,  # (B, P, D)
    importance: Tensor,  # (B, P)
    edges: Edges,  # (E, 2)
    theta: float = 0.5,
) -> Tensor:
    """Weights of the edges of a fusion graph, from the similarity and importance of their ends.

    For the edge (a, b) of a sample with vertices V and importance w:

        S_ab = cos(softmax(V_a), softmax(V_b)),   q_ab = (w_a + w_b) / (S_ab + theta),
        w_ab = softmax of q over the edges

    (graph fusion network, Mai et al. 2020, section 3.3). The softmax normalisers cancel in
    the cosine, so one pass over the vertices is enough.

    `vertices` (B, P, D) are float32, float64, bfloat16 or float16; `importance` (B, P) has their
    dtype. `edges` (E, 2) are pairs of vertex indices, a sequence or an int64 tensor on the CPU:
    the structure of the graph, the same for all samples. `theta` > 0. Returns (B, E) in the dtype
    of the vertices, each row summing to 1. Differentiable once, in vertices and importance.

    Raises TypeError or ValueError for arguments of the wrong type, dtype, shape or device.

    Example:
        >>> import torch
        >>> from fastmtl.ops import fusion_edge_weights
        >>> vertices = torch.tensor([[[0.0, 4.0], [0.0, 4.0], [4.0, 0.0]]])
        >>> fusion_edge_weights(vertices, torch.ones(1, 3), [(0, 1), (0, 2), (1, 2)])
        tensor([[0.0437, 0.4782, 0.4782]])
    """
    vertices, importance = _check(vertices, importance, theta)
    edge_tensor = as_edges(edges, vertices.shape[1])
    if _checks.traced(vertices):
        weights: Tensor = _fusion_edge_weights(vertices, importance, edge_tensor, theta)[0]
        return weights
    kernels = backends.kernels("fusion_edge_weights", vertices.device)
    if kernels is reference:
        return reference.fusion_edge_weights(vertices, importance, edge_tensor, theta)
    result: Tensor = _FusionEdgeWeights.apply(vertices, importance, edge_tensor, theta, kernels)
    return result


def graph_fusion(
    vertices: Tensor,  # (B, P, D)
    importance: Tensor,  # (B, P)
    edges: Edges,  # (E, 2)
    edge_vertices: Tensor,  # (B, E, D')
    theta: float = 0.5,
) -> tuple[Tensor, Tensor]:
    """Fuse the vertices that edges stand for, weighted by `fusion_edge_weights`.

        F = sum_e w_e edge_vertices_e

    Arguments as for `fusion_edge_weights`, and `edge_vertices` (B, E, D') in the dtype of the
    vertices. Returns F (B, D') and the weights w (B, E), both in that dtype; F is summed with
    the weights before they are rounded. Differentiable once, in all three tensors.

    Raises TypeError or ValueError for arguments of the wrong type, dtype, shape or device.

    Example:
        >>> import torch
        >>> from fastmtl.ops import graph_fusion
        >>> fused, weights = graph_fusion(
        ...     torch.zeros(1, 2, 4), torch.ones(1, 2), [(0, 1)], torch.ones(1, 1, 3)
        ... )
        >>> fused, weights
        (tensor([[1., 1., 1.]]), tensor([[1.]]))
    """
    _checks.need_floating("edge_vertices", edge_vertices)
    vertices, importance, edge_vertices = _check(vertices, importance, theta, edge_vertices)
    edge_tensor = as_edges(edges, vertices.shape[1])
    leading = (vertices.shape[0], edge_tensor.shape[0])
    if edge_vertices.dim() != 3 or edge_vertices.shape[:2] != leading:
        raise ValueError(
            f"edge_vertices: expected shape (B, E, D') with B = {leading[0]} and E = {leading[1]}, "
            f"got {tuple(edge_vertices.shape)}"
        )
    if _checks.traced(vertices):
        traced = _graph_fusion(vertices, importance, edge_tensor, edge_vertices, theta)
        return traced[0], traced[1]
    kernels = backends.kernels("graph_fusion", vertices.device)
    if kernels is reference:
        return reference.graph_fusion(vertices, importance, edge_tensor, edge_vertices, theta)
    result: tuple[Tensor, Tensor] = _GraphFusion.apply(
        vertices, importance, edge_tensor, edge_vertices, theta, kernels
    )
    return result


def _check(
    vertices: Tensor, importance: Tensor, theta: float, *others: Tensor
) -> tuple[Tensor, ...]:
    _checks.need_floating("vertices", vertices)
    _checks.need_floating("importance", importance)
    if vertices.dim() != 3 or vertices.shape[2] == 0:
        raise ValueError(
            f"vertices: expected shape (B, P, D) with D >= 1, got {tuple(vertices.shape)}"
        )
    if importance.shape != vertices.shape[:2]:
        _checks.need_shape(
            "importance", importance, tuple(vertices.shape[:2]), "one value a vertex (B, P)"
        )
    _checks.need_number("theta", theta, above=0)
    tensors = _checks.promote_under_autocast(vertices, importance, *others)
    for name, tensor in zip(("importance", "edge_vertices"), tensors[1:], strict=False):
        _checks.need_dtype(name, tensor, "vertices", tensors[0])
        _checks.need_device(name, tensor, "vertices", tensors[0])
    return tensors


class _FusionEdgeWeights(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, vertices: Tensor, importance: Tensor, edges: Tensor, theta: float, kernels: Any
    ) -> Tensor:
        weights, stats = kernels.fusion_edge_weights_forward(vertices, importance, edges, theta)
        ctx.save_for_backward(stats, vertices, importance, edges)
        ctx.settings = theta, kernels
        result: Tensor = weights
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        theta, kernels = ctx.settings
        grads = kernels.fusion_edge_weights_backward(grad, *ctx.saved_tensors, theta)
        return *grads, None, None, None


class _GraphFusion(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        vertices: Tensor,
        importance: Tensor,
        edges: Tensor,
        edge_vertices: Tensor,
        theta: float,
        kernels: Any,
    ) -> tuple[Tensor, Tensor]:
        fused, weights, stats = kernels.graph_fusion_forward(
            vertices, importance, edges, edge_vertices, theta
        )
        ctx.save_for_backward(stats, vertices, importance, edges, edge_vertices)
        ctx.set_materialize_grads(False)
        ctx.settings = theta, kernels
        return fused, weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_fused: Tensor | None, grad_weights: Tensor | None) -> Any:
        theta, kernels = ctx.settings
        if grad_fused is None and grad_weights is None:
            return (None,) * 6
        if grad_fused is None:
            *saved, _ = ctx.saved_tensors
            grad_v, grad_i = kernels.fusion_edge_weights_backward(grad_weights, *saved, theta)
            return grad_v, grad_i, None, None, None, None
        grad_v, grad_i, grad_e = kernels.graph_fusion_backward(
            grad_fused, grad_weights, *ctx.saved_tensors, theta
        )
        return grad_v, grad_i, None, grad_e, None, None


@torch.library.custom_op("fastmtl::fusion_edge_weights", mutates_args=())
def _fusion_edge_weights(
    vertices: Tensor, importance: Tensor, edges: Tensor, theta: float
) -> tuple[Tensor, Tensor]:
    need_in_range(edges, vertices.shape[1])
    kernels = backends.kernels("fusion_edge_weights", vertices.device)
    result: tuple[Tensor, Tensor] = kernels.fusion_edge_weights_forward(
        vertices, importance, edges, theta
    )
    return result


@torch.library.custom_op("fastmtl::fusion_edge_weights_backward", mutates_args=())
def _fusion_edge_weights_backward(
    grad: Tensor, stats: Tensor, vertices: Tensor, importance: Tensor, edges: Tensor, theta: float
) -> tuple[Tensor, Tensor]:
    kernels = backends.kernels("fusion_edge_weights", vertices.device)
    result: tuple[Tensor, Tensor] = kernels.fusion_edge_weights_backward(
        grad, stats, vertices, importance, edges, theta
    )
    return result


@torch.library.custom_op("fastmtl::graph_fusion", mutates_args=())
def _graph_fusion(
    vertices: Tensor, importance: Tensor, edges: Tensor, edge_vertices: Tensor, theta: float
) -> tuple[Tensor, Tensor, Tensor]:
    need_in_range(edges, vertices.shape[1])
    kernels = backends.kernels("graph_fusion", vertices.device)
    result: tuple[Tensor, Tensor, Tensor] = kernels.graph_fusion_forward(
        vertices, importance, edges, edge_vertices, theta
    )
    return result


@torch.library.custom_op("fastmtl::graph_fusion_backward", mutates_args=())
def _graph_fusion_backward(
    grad_fused: Tensor,
    grad_weights: Tensor | None,
    stats: Tensor,
    vertices: Tensor,
    importance: Tensor,
    edges: Tensor,
    edge_vertices: Tensor,
    theta: float,
) -> tuple[Tensor, Tensor, Tensor]:
    kernels = backends.kernels("graph_fusion", vertices.device)
    result: tuple[Tensor, Tensor, Tensor] = kernels.graph_fusion_backward(
        grad_fused, grad_weights, stats, vertices, importance, edges, edge_vertices, theta
    )
    return result


def _fake_stats(vertices: Tensor, edges: Tensor) -> Tensor:
    columns = edges.shape[0] + 2 * vertices.shape[1]
    dtype = reference.accumulation_dtype(vertices.dtype)
    return vertices.new_empty((vertices.shape[0], columns), dtype=dtype)


@_fusion_edge_weights.register_fake
def _(vertices: Tensor, importance: Tensor, edges: Tensor, theta: float) -> tuple[Tensor, Tensor]:
    weights = vertices.new_empty((vertices.shape[0], edges.shape[0]))
    return weights, _fake_stats(vertices, edges)


@_fusion_edge_weights_backward.register_fake
def _(
    grad: Tensor, stats: Tensor, vertices: Tensor, importance: Tensor, edges: Tensor, theta: float
) -> tuple[Tensor, Tensor]:
    return vertices.new_empty(vertices.shape), importance.new_empty(importance.shape)


@_graph_fusion.register_fake
def _(
    vertices: Tensor, importance: Tensor, edges: Tensor, edge_vertices: Tensor, theta: float
) -> tuple[Tensor, Tensor, Tensor]:
    fused = edge_vertices.new_empty((edge_vertices.shape[0], edge_vertices.shape[2]))
    weights = vertices.new_empty((vertices.shape[0], edges.shape[0]))
    return fused, weights, _fake_stats(vertices, edges)


@_graph_fusion_backward.register_fake
def _(
    grad_fused: Tensor,
    grad_weights: Tensor | None,
    stats: Tensor,
    vertices: Tensor,
    importance: Tensor,
    edges: Tensor,
    edge_vertices: Tensor,
    theta: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        vertices.new_empty(vertices.shape),
        importance.new_empty(importance.shape),
        edge_vertices.new_empty(edge_vertices.shape),
    )


def _setup_weights(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    vertices, importance, edges, ctx.theta = inputs
    ctx.save_for_backward(output[1], vertices, importance, edges)
    ctx.mark_non_differentiable(output[1])


def _setup_fusion(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    vertices, importance, edges, edge_vertices, ctx.theta = inputs
    ctx.save_for_backward(output[2], vertices, importance, edges, edge_vertices)
    ctx.mark_non_differentiable(output[2])


def _differentiate_weights(ctx: Any, grad: Tensor, _: Tensor) -> Any:
    grads = _fusion_edge_weights_backward(grad, *ctx.saved_tensors, ctx.theta)
    return *grads, None, None


def _differentiate_fusion(ctx: Any, grad_fused: Tensor, grad_weights: Tensor, _: Tensor) -> Any:
    grad_v, grad_i, grad_e = _graph_fusion_backward(
        grad_fused, grad_weights, *ctx.saved_tensors, ctx.theta
    )
    return grad_v, grad_i, None, grad_e, None


_fusion_edge_weights.register_autograd(_differentiate_weights, setup_context=_setup_weights)
_graph_fusion.register_autograd(_differentiate_fusion, setup_context=_setup_fusion)
