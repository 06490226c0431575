"""Edge lists: structure known on the host, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastmtl import _checks
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
    try:
        pairs = tuple(tuple(int(index) for index in edge) for edge in edges)
    except (TypeError, ValueError) as error:
        raise TypeError(f"edges: expected pairs of vertex indices, got {edges!r}") from error
    for pair in pairs:
        if len(pair) != 2:
            raise ValueError(f"edges: expected pairs of vertex indices, got {pair}")
        if not all(0 <= index < vertex_count for index in pair):
            raise ValueError(f"edges: expected indices from 0 to {vertex_count - 1}, got {pair}")
    if torch.compiler.is_compiling():
        return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    return torch.from_numpy(_array(pairs))


def need_edges(edges: Tensor, vertex_count: int) -> None:
    """Raise unless `edges` are pairs of indices that name vertices."""
    _need_pairs(edges)
    if edges.numel() and not 0 <= int(edges.min()) <= int(edges.max()) < vertex_count:
        raise ValueError(
            f"edges: expected indices from 0 to {vertex_count - 1}, "
            f"got {int(edges.min())} to {int(edges.max())}"
        )


def _need_pairs(edges: Tensor) -> None:
    _checks.need_tensor("edges", edges)
    if edges.dtype != torch.int64 or edges.dim() != 2 or edges.shape[1] != 2:
        raise ValueError(
            f"edges: expected int64 pairs of shape (E, 2), got {edges.dtype} {tuple(edges.shape)}"
        )
    if edges.device.type not in ("cpu", "meta"):
        raise ValueError(f"edges: expected a tensor on the CPU, got one on {edges.device}")


# No tensor is kept: one that is made in a transform or in inference mode is of no use after it.
@lru_cache(maxsize=256)
def _array(pairs: tuple[tuple[int, ...], ...]) -> NDArray[np.int64]:
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)
