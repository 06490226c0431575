"""Edge weights of graph fusion, and the weighted fusion of edge vertices."""

from __future__ import annotations

from torch import Tensor

from fastmtl import _checks
from fastmtl.backends.reference import graph_fusion as reference
from fastmtl.ops._autocast import in_one_dtype, need_one_dtype
from fastmtl.ops._edges import Edges, as_edges, need_edges
from fastmtl.ops._op import FusedOp


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

    (HGFN; the graph fusion network of Mai et al. 2020, section 3.3, has the inner product for S).
    The softmax normalisers cancel in the cosine, so one pass over the vertices is enough.

    Args:
        vertices: V, float32, float64, bfloat16 or float16.
        importance: w, in the dtype of the vertices.
        edges: pairs of vertex indices, a sequence or an int64 tensor on the CPU: the structure of
            the graph, the same for all samples.
        theta: above 0.

    Shape:
        vertices (B, P, D), importance (B, P), edges (E, 2); the weights (B, E), each row summing to
        1, in the dtype of the vertices. Differentiable once, in vertices and importance.

    Raises:
        TypeError, ValueError: for arguments of the wrong type, dtype, shape or device.

    Examples:
        >>> import torch
        >>> from fastmtl.ops import fusion_edge_weights
        >>> vertices = torch.tensor([[[0.0, 4.0], [0.0, 4.0], [4.0, 0.0]]])
        >>> fusion_edge_weights(vertices, torch.ones(1, 3), [(0, 1), (0, 2), (1, 2)])
        tensor([[0.0437, 0.4782, 0.4782]])
    """
    vertices, importance = in_one_dtype(vertices=vertices, importance=importance)
    _check_graph(vertices, importance, theta)
    edge_tensor = as_edges(edges, vertices.shape[1])
    return _fusion_edge_weights(vertices, importance, edge_tensor, theta)


def graph_fusion(
    vertices: Tensor,  # (B, P, D)
    importance: Tensor,  # (B, P)
    edges: Edges,  # (E, 2)
    edge_vertices: Tensor,  # (B, E, D')
    theta: float = 0.5,
) -> tuple[Tensor, Tensor]:
    """Fuse the vertices that edges stand for, weighted by `fusion_edge_weights`.

        F = sum_e w_e edge_vertices_e

    Args:
        vertices: as for `fusion_edge_weights`.
        importance: as there.
        edges: as there.
        edge_vertices: what each edge stands for, in the dtype of the vertices.
        theta: as there.

    Shape:
        vertices (B, P, D), importance (B, P), edges (E, 2), edge_vertices (B, E, D'); F (B, D') and
        the weights w (B, E), both in the dtype of the vertices. F is summed with the weights before
        they are rounded. Differentiable once, in all three tensors.

    Raises:
        TypeError, ValueError: for arguments of the wrong type, dtype, shape or device.

    Examples:
        >>> import torch
        >>> from fastmtl.ops import graph_fusion
        >>> fused, weights = graph_fusion(
        ...     torch.zeros(1, 2, 4), torch.ones(1, 2), [(0, 1)], torch.ones(1, 1, 3)
        ... )
        >>> fused, weights
        (tensor([[1., 1., 1.]]), tensor([[1.]]))
    """
    vertices, importance, edge_vertices = in_one_dtype(
        vertices=vertices, importance=importance, edge_vertices=edge_vertices
    )
    _check_graph(vertices, importance, theta)
    edge_tensor = as_edges(edges, vertices.shape[1])
    _check_edge_vertices(vertices, edge_tensor, edge_vertices)
    return _graph_fusion(vertices, importance, edge_vertices, edge_tensor, theta)


def _check_graph(vertices: Tensor, importance: Tensor, theta: float) -> None:
    if vertices.dim() != 3 or vertices.shape[2] == 0:
        raise ValueError(
            f"vertices: expected shape (B, P, D) with D >= 1, got {tuple(vertices.shape)}"
        )
    if importance.shape != vertices.shape[:2]:
        _checks.need_shape(
            "importance", importance, tuple(vertices.shape[:2]), "one value a vertex (B, P)"
        )
    _checks.need_device("importance", importance, "vertices", vertices)
    _checks.need_number("theta", theta, above=0)


def _check_edge_vertices(vertices: Tensor, edges: Tensor, edge_vertices: Tensor) -> None:
    leading = (vertices.shape[0], edges.shape[0])
    if edge_vertices.dim() != 3 or edge_vertices.shape[:2] != leading:
        raise ValueError(
            f"edge_vertices: expected shape (B, E, D') with B = {leading[0]} and E = {leading[1]}, "
            f"got {tuple(edge_vertices.shape)}"
        )
    _checks.need_device("edge_vertices", edge_vertices, "vertices", vertices)


def _guard_weights(vertices: Tensor, importance: Tensor, edges: Tensor, theta: float) -> None:
    need_one_dtype(vertices=vertices, importance=importance)
    _check_graph(vertices, importance, theta)
    need_edges(edges, vertices.shape[1])


def _guard_fusion(
    vertices: Tensor, importance: Tensor, edge_vertices: Tensor, edges: Tensor, theta: float
) -> None:
    _guard_weights(vertices, importance, edges, theta)
    need_one_dtype(vertices=vertices, edge_vertices=edge_vertices)
    _check_edge_vertices(vertices, edges, edge_vertices)


_fusion_edge_weights = FusedOp(reference.fusion_edge_weights, guard=_guard_weights)
_graph_fusion = FusedOp(reference.graph_fusion, outputs=2, guard=_guard_fusion)
