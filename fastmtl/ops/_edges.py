"""Edge lists: structure known on the host, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from fastmtl.ops._op import traced

Edges = Tensor | Sequence[Sequence[int]]


def as_edges(edges: Edges, vertex_count: int) -> Tensor:
    """`edges` as a checked int64 tensor (E, 2) on the CPU that nobody else changes."""
    if isinstance(edges, Tensor):
        _need_pairs(edges)
        if traced(edges):
            return edges.contiguous()
        need_edges(edges, vertex_count)
        return edges.contiguous().clone()
    pairs = tuple(tuple(int(index) for index in edge) for edge in edges)
    wrong = [pair for pair in pairs if len(pair) != 2]
    if wrong:
        raise ValueError(f"edges: expected pairs of vertex indices, got {wrong[0]}")
    if torch.compiler.is_compiling():
        return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    return _checked(pairs, vertex_count)


def need_edges(edges: Tensor, vertex_count: int) -> None:
    """Raise unless `edges` are pairs of indices that name vertices."""
    _need_pairs(edges)
    if edges.numel() and not 0 <= int(edges.min()) <= int(edges.max()) < vertex_count:
        raise ValueError(
            f"edges: expected indices from 0 to {vertex_count - 1}, "
            f"got {int(edges.min())} to {int(edges.max())}"
        )


def _need_pairs(edges: Tensor) -> None:
    if edges.dtype != torch.int64 or edges.dim() != 2 or edges.shape[1] != 2:
        raise ValueError(
            f"edges: expected int64 pairs of shape (E, 2), got {edges.dtype} {tuple(edges.shape)}"
        )
    if edges.device.type not in ("cpu", "meta"):
        raise ValueError(f"edges: expected a tensor on the CPU, got one on {edges.device}")


@lru_cache(maxsize=256)
def _checked(pairs: tuple[tuple[int, ...], ...], vertex_count: int) -> Tensor:
    # Kept for later calls, which may save it for backward: an inference tensor cannot be.
    with torch.inference_mode(False):
        edges = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    need_edges(edges, vertex_count)
    return edges
