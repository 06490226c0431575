"""Fusions of modality vectors that HGFN is compared with, out of `torch.nn` layers alone.

Each is called with vectors (B, M, D) and, where samples lack modalities, with `present`, bool
(B, M): the vectors of others are not read.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastmtl.nn._module import call
from fastmtl.nn.fusion_levels import fusion_levels
from fastmtl.nn.presence import mean_of_present, without_absent

# Of GFN, as its authors have them.
_SIMILARITY_OFFSET = 0.5
_SLOPE = 0.2


class ConcatFusion(nn.Module):
    """CFC: the vectors (B, M, D) one after the other, (B, M * D); 0 for an absent one, which is
    concatenation of the others before weights that lack its columns.

    Examples:
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

    def forward(self, vertices: Tensor, present: Tensor | None = None) -> Tensor:
        if present is not None:
            vertices = without_absent(vertices, present)
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
    An absent modality is no agent: it is left out of the mean and of the maximum, its cell is empty
    in both maps, as those beyond the first and the last are, and its F_m is 0.

    Examples:
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

    def forward(self, vertices: Tensor, present: Tensor | None = None) -> Tensor:
        if present is not None:
            return self._of_present(without_absent(vertices, present), present)
        agents = vertices.transpose(1, 2)  # (B, D, M)
        scene = agents.mean(2, keepdim=True).expand_as(agents)
        fine = self.activation(self.fine(torch.cat([agents, scene], 1)))
        coarse = self.activation(self.coarse(fine.amax(2))).unsqueeze(2).expand_as(fine)
        merged = call(self.merge, torch.cat([fine, coarse], 1))
        return (agents + merged).transpose(1, 2).flatten(1)

    def _of_present(self, vertices: Tensor, present: Tensor) -> Tensor:
        agents, empty = vertices.transpose(1, 2), ~present.unsqueeze(1)
        scene = mean_of_present(vertices, present).unsqueeze(2).expand_as(agents)
        seen = torch.cat([agents, scene.masked_fill(empty, 0.0)], 1)
        # What the activation gives is at least 0, so that empty cells do not win the maximum.
        fine = self.activation(self.fine(seen)).masked_fill(empty, 0.0)
        coarse = self.activation(self.coarse(fine.amax(2))).unsqueeze(2).expand_as(fine)
        merged = call(self.merge, torch.cat([fine, coarse.masked_fill(empty, 0.0)], 1))
        return (agents + merged).masked_fill(empty, 0.0).transpose(1, 2).flatten(1)


class GraphFusion(nn.Module):
    """GFN: the graph fusion network of Mai et al. (AAAI 2020, "Modality to modality translation"),
    for modality vectors (B, M, D), as in the authors' code (TmacMai/ARGF_multimodal_fusion):

        w_i = sigmoid(a . V_i + c), the same a for all,    F_1 = (1/M) sum_i w_i V_i

    and for the edges (a, b) of each further level (`fastmtl.nn.fusion_levels`)

        S_ab = softmax(V_a) . softmax(V_b),    q_ab = (w_a + w_b) / (S_ab + 0.5)
        V_ab = tanh(W_2 LeakyReLU(W_1 [U_a, U_b])), one network for all edges of a level
        U_ab = ELU(softmax over the edges of q at ab * V_ab),    F_k = sum over the edges of U_ab

    For the next level U_ab stands for the vertex in networks, V_ab in similarities, and q_ab, not
    its softmax, is its importance; of a modality U_i = V_i. Apart from the code are the width of
    the network, D and not 64 units, and any number of modalities instead of 3; batch normalisation
    and classifier behind it are HGFN's heads here, and there is no translation between modalities.

    HGFN, which grew from it, takes the importance from all vectors together, the cosine for S, the
    softmax for the importance of an edge, and V_ab where U_ab stands here.

    The result is F_1, F_2, ... concatenated, (B, levels * D).

    Where modalities are absent, F_1 is the mean over the others, and the edges of a level, and of
    its softmax, are those between vertices of which no modality is absent; F_k is 0 without any.
    That is the result of the others alone.

    Examples:
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
                nn.LeakyReLU(_SLOPE),
                nn.Linear(features, features, **factory),
                nn.Tanh(),
            )
            for _ in self.edges
        )

    def forward(self, vertices: Tensor, present: Tensor | None = None) -> Tensor:
        if present is not None:
            vertices = without_absent(vertices, present)
        importance = self.importance(vertices).squeeze(2).sigmoid()
        weighted = importance.unsqueeze(2) * vertices
        fused = [weighted.mean(1) if present is None else mean_of_present(weighted, present)]
        edge_present = joined_present = present
        # Of the level's vertices: what similarities, importances and networks are of.
        joined, weights, inputs = vertices, importance, vertices
        for edges, network in zip(self.edges, self.pairs, strict=True):
            first, second = (list(ends) for ends in zip(*edges, strict=True))
            soft = joined.softmax(2)
            similarity = (soft[:, first] * soft[:, second]).sum(2)
            scores = (weights[:, first] + weights[:, second]) / (similarity + _SIMILARITY_OFFSET)
            below = network(torch.cat([inputs[:, first], inputs[:, second]], 2))
            counted = scores
            if joined_present is not None:
                edge_present = joined_present[:, first] & joined_present[:, second]
                counted = scores.masked_fill(~edge_present, torch.finfo(scores.dtype).min)
            weighted = F.elu(counted.softmax(1).unsqueeze(2) * below)
            if edge_present is not None:
                weighted = without_absent(weighted, edge_present)
            fused.append(weighted.sum(1))
            joined = torch.cat([below, vertices], 1)
            weights = torch.cat([scores, importance], 1)
            inputs = torch.cat([weighted, vertices], 1)
            if present is not None and edge_present is not None:
                joined_present = torch.cat([edge_present, present], 1)
        return torch.cat(fused, 1)
