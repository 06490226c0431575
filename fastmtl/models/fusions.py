"""Fusions of modality vectors that HGFN is compared with, out of `torch.nn` layers alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastmtl.nn._module import call
from fastmtl.nn.fusion_levels import fusion_levels

_SIMILARITY_OFFSET = 0.5


class ConcatFusion(nn.Module):
    """CFC: the vectors (B, M, D) one after the other, (B, M * D).

    Example:
        >>> import torch
        >>> ConcatFusion(num_modalities=3, features=16)(torch.randn(4, 3, 16)).shape
        torch.Size([4, 48])
    """

    def __init__(
        self,
        num_modalities: int,
        features: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.out_features = num_modalities * features

    def forward(self, vertices: Tensor) -> Tensor:
        return vertices.flatten(1)


class TensorFusion(nn.Module):
    """MATF: multi-agent tensor fusion (Zhao et al. 2019) of modality vectors (B, M, D).

    There, agents' encodings are put at the agents' places in a map, beside features of the scene; a
    small U-Net of convolutions fuses the map; and what it holds at an agent's place is added to the
    agent's own encoding. Here the modalities are the agents. They have no places, so the map is a
    row of M cells in their order, and the mean of all vectors, in every cell, stands for the scene:
    2 D channels. The U-Net has two scales,

        fine = ReLU(conv3([V, mean V]))                       (M cells, D channels)
        coarse = ReLU(W max over the cells of fine)           (one cell)
        F_m = V_m + conv3([fine, coarse])_m,

    and the result is F_1, ..., F_M concatenated, (B, M * D). The order of the modalities matters.

    Example:
        >>> import torch
        >>> TensorFusion(num_modalities=3, features=16)(torch.randn(4, 3, 16)).shape
        torch.Size([4, 48])
    """

    def __init__(
        self,
        num_modalities: int,
        features: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.out_features = num_modalities * features
        self.fine = nn.Conv1d(2 * features, features, 3, padding=1, **factory)
        self.coarse = nn.Linear(features, features, **factory)
        self.merge = nn.Conv1d(2 * features, features, 3, padding=1, **factory)
        self.activation = nn.ReLU()

    def forward(self, vertices: Tensor) -> Tensor:
        agents = vertices.transpose(1, 2)  # (B, D, M)
        scene = agents.mean(2, keepdim=True).expand_as(agents)
        fine = self.activation(self.fine(torch.cat([agents, scene], 1)))
        coarse = self.activation(self.coarse(fine.amax(2))).unsqueeze(2).expand_as(fine)
        merged = call(self.merge, torch.cat([fine, coarse], 1))
        return (agents + merged).transpose(1, 2).flatten(1)


class GraphFusion(nn.Module):
    """GFN: the graph fusion network of Mai et al. (AAAI 2020), for modality vectors (B, M, D).

    The levels and edges are those of HGFN, which grew from it (`fastmtl.nn.fusion_levels`). It
    differs in three places: the importance of a modality comes from that vector alone,
    w_i = sigmoid(a . V_i + c), the same a for all; an edge's vertex is a two-layer network of the
    pair, V_ab = tanh(W_2 LeakyReLU(W_1 [V_a, V_b])), one for all edges of a level; and the
    similarity is the inner product S_ab = softmax(V_a) . softmax(V_b), not its cosine.

        F_1 = (1/M) sum_i w_i V_i
        F_k = sum over the edges of w_ab V_ab,  w_ab = softmax of (w_a + w_b) / (S_ab + 0.5)

    The result is F_1, F_2, ... concatenated, (B, levels * D).

    Example:
        >>> import torch
        >>> GraphFusion(num_modalities=3, features=16)(torch.randn(4, 3, 16)).shape
        torch.Size([4, 48])
    """

    def __init__(
        self,
        num_modalities: int,
        features: int,
        max_level: int = 3,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.edges = [level.edges for level in fusion_levels(num_modalities, max_level)]
        self.out_features = (1 + len(self.edges)) * features
        self.importance = nn.Linear(features, 1, **factory)
        self.pairs = nn.ModuleList(
            nn.Sequential(
                nn.Linear(2 * features, features, **factory),
                nn.LeakyReLU(),
                nn.Linear(features, features, **factory),
                nn.Tanh(),
            )
            for _ in self.edges
        )

    def forward(self, vertices: Tensor) -> Tensor:
        importance = self.importance(vertices).squeeze(2).sigmoid()
        fused = [(importance.unsqueeze(2) * vertices).mean(1)]
        joined, weights = below, edge_weights = vertices, importance
        for index, (edges, network) in enumerate(zip(self.edges, self.pairs, strict=True)):
            if index:
                joined = torch.cat([below, vertices], 1)
                weights = torch.cat([edge_weights, importance], 1)
            first, second = (list(ends) for ends in zip(*edges, strict=True))
            soft = joined.softmax(2)
            similarity = (soft[:, first] * soft[:, second]).sum(2)
            scores = (weights[:, first] + weights[:, second]) / (similarity + _SIMILARITY_OFFSET)
            edge_weights = scores.softmax(1)
            below = network(torch.cat([joined[:, first], joined[:, second]], 2))
            fused.append((edge_weights.unsqueeze(2) * below).sum(1))
        return torch.cat(fused, 1)
