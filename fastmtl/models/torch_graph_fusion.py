"""The graph fusion of HGFN out of torch.nn layers alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TorchGraphFusion(nn.Module):
    """The fusion of `HGFN`, edge by edge.

    `pair_networks` gives for each level from the second how many networks CONV its pairs have: one,
    or as many as there are edges.
    """

    def __init__(
        self,
        features: int,
        theta: float,
        *,
        attention_channels: int,
        pair_channels: int,
        pair_networks: Sequence[int],
        similarity_norm: bool,
        level_norm: bool,
        residual: bool,
    ) -> None:
        super().__init__()
        self.theta = theta
        self.norm = nn.LayerNorm(features, elementwise_affine=False)
        self.similarity_norm = similarity_norm
        self.level_norm = level_norm
        self.gain = nn.Parameter(torch.empty(1 + len(pair_networks))) if residual else None
        self.attention = nn.Sequential(
            nn.Conv2d(1, attention_channels, 5, padding=2),
            nn.LeakyReLU(),
            nn.Conv2d(attention_channels, 1, 1),
            nn.LeakyReLU(),
        )
        self.levels = nn.ModuleList(
            nn.ModuleList(_Pair(pair_channels, features) for _ in range(networks))
            for networks in pair_networks
        )

    def forward(self, vertices: Tensor, present: Tensor | None = None) -> Tensor:
        if present is None:
            present = vertices.new_ones(vertices.shape[:2], dtype=torch.bool)
        vertices = where_present(present, vertices)
        importance = self.attention(vertices.unsqueeze(1)).squeeze(1).mean(-1)
        single = [
            _Vertex(frozenset([modality]), vector, weight, there)
            for modality, (vector, weight, there) in enumerate(
                zip(
                    vertices.unbind(1),
                    where_present(present, importance).unbind(1),
                    present.unbind(1),
                    strict=True,
                )
            )
        ]
        fused = [_weighted_sum(single) / present.sum(1, keepdim=True)]
        below: list[_Vertex] = []
        networks: Any
        for size, networks in enumerate(self.levels, start=2):
            candidates = list(combinations(below or single, 2))
            candidates += [(a, b) for a in below for b in single]
            edges = [(a, b) for a, b in candidates if len(a.members | b.members) == size]
            scores = [
                (a.importance + b.importance) / (self._similarity(a.vector, b.vector) + self.theta)
                for a, b in edges
            ]
            there = [a.present & b.present for a, b in edges]
            weights = _softmax_where(torch.stack(there, 1), torch.stack(scores, 1)).unbind(1)
            own = list(networks) * (len(edges) // len(networks))
            below = [
                _Vertex(a.members | b.members, network(a.vector, b.vector), weight, own_there)
                for (a, b), network, weight, own_there in zip(
                    edges, own, weights, there, strict=True
                )
            ]
            fused.append(_weighted_sum(below))
        if self.level_norm:
            fused = [self.norm(level) for level in fused]
        if self.gain is not None:
            fused = [self.gain[index] * level for index, level in enumerate(fused)]
            fused += vertices.unbind(1)
        return torch.cat(fused, 1)

    def _similarity(self, a: Tensor, b: Tensor) -> Tensor:
        if self.similarity_norm:
            a, b = self.norm(a), self.norm(b)
        return F.cosine_similarity(a.softmax(1), b.softmax(1), dim=1)


class _Pair(nn.Module):
    """CONV of one edge."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, channels, 3, padding=1)
        self.dense = nn.Linear(channels * features, features)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        hidden = F.leaky_relu(self.conv(torch.stack((a, b), 1)))
        return F.leaky_relu(self.dense(hidden.flatten(1)))


class _Vertex(NamedTuple):
    members: frozenset[int]
    vector: Tensor  # (B, D)
    importance: Tensor  # (B,)
    present: Tensor  # (B,)


def where_present(present: Tensor, values: Tensor) -> Tensor:
    """Values (B, ...), 0 where not `present`, which has the first of their dimensions."""
    return values.masked_fill(
        ~present.view(*present.shape, *[1] * (values.dim() - present.dim())), 0
    )


def _softmax_where(present: Tensor, scores: Tensor) -> Tensor:
    """The softmax (B, E) over what is present, 0 where nothing is."""
    some = present.any(1, keepdim=True)
    return scores.masked_fill(~present & some, -torch.inf).softmax(1).masked_fill(~present, 0)


def _weighted_sum(vertices: list[_Vertex]) -> Tensor:
    return torch.stack([v.importance.unsqueeze(1) * v.vector for v in vertices]).sum(0)
