"""Hierarchical graph fusion of modalities."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastmtl import ops
from fastmtl._checks import need_flag, need_number, need_odd, need_size, need_sizes
from fastmtl.nn._module import Indices, Layer
from fastmtl.nn.attention_unit import DynamicAttentionUnit
from fastmtl.nn.fusion_levels import fusion_levels
from fastmtl.nn.presence import ABSENT, need_present, without_absent
from fastmtl.nn.task_linear import TaskLinear

# What the gains of the levels beside the modalities' vectors start at.
_GAIN = 0.3


class HierarchicalGraphFusion(nn.Module):
    """Fuses M vectors of one size over pairs, pairs of pairs, and so on (HGFN's fusion graph).

    Level 1: importances w (B, M) from a `DynamicAttentionUnit`; F_1 = (1/M) sum_i w_i V_i.

    Level k from 2 to min(M, max_level): for each edge (a, b) of the level (`fusion_levels`) the
    vertex V_ab = CONV(V_a, V_b), and F_k = sum over the edges of w_ab V_ab with
    w_ab = softmax over the edges of (w_a + w_b) / (S_ab + theta) and
    S_ab = cos(softmax(V_a), softmax(V_b)), computed by `fastmtl.ops.graph_fusion`.
    A vertex of level k - 1 >= 2 has its edge weight there as importance, a modality always its w_i.

    CONV stacks the pair as two channels of length D, in the order of the edge; a convolution of
    `pair_kernel_size` (odd, zero padding that keeps the length) to `pair_channels` channels,
    LeakyReLU, a dense layer back to D features, LeakyReLU. With `share_pairs` all edges of a level
    use one set of weights, so that the parameters do not grow with the number of edges (6 at level
    3 of three modalities, 24 of four) and each set sees every pair; without, each edge has its own.

    Three options depart from the paper; without them the equations are those above.

    - `level_norm`: F_k <- (F_k - mean F_k) / std F_k over the features of a sample, so that no
      level drowns in another (layer normalisation without weights).
    - `similarity_norm`: S_ab is taken of vertices that are standardised in the same way. Vertices
      whose features are small have softmaxes that are nearly uniform and cosines near 1 with all
      others: then the edge weights hardly depend on the sample. Of independent standard normal
      features S is around 1/e, of equal ones 1.
    - `residual`: the result is [g_1 F_1, g_2 F_2, ..., V_1, ..., V_M], concatenation with the graph
      beside it, with learned gains g_k that start at 0.3 (Touvron et al. 2021, equation 6).

    Of a sample that lacks modalities, with P those that are `present`,

        F_1 = (1/|P|) sum over P of w_i V_i,

    where V_i = 0 and w_i = 0 of the absent; and the edges of each further level are those between
    vertices whose modalities are all in P: over them runs the softmax, and F_k is 0 where there are
    none. The attention unit sees an absent modality as it sees what lies beyond the first and the
    last. So the result is that of the modalities in P alone, with the same weights, where these
    are neighbours in the order of the modalities, and `share_pairs` holds.

    Args:
        num_modalities: M.
        features: D.
        theta: above 0; the smaller, the more an edge weight depends on the similarity.
        max_level: the highest level, where there are modalities enough.
        attention_channels: channels of the `DynamicAttentionUnit`.
        pair_channels: channels between the layers of CONV.
        pair_kernel_size: width of its convolution, odd.
        share_pairs: whether the edges of a level share the weights of CONV.
        similarity_norm: whether S is taken of standardised vertices.
        level_norm: whether each F_k is standardised.
        residual: whether the vectors themselves stand beside the F_k.
        negative_slope: that of every LeakyReLU.
        device: where the parameters are.
        dtype: that of the parameters.

    Shape:
        - vertices: (B, M, D).
        - present: bool (B, M), which modalities a sample has; None: all. The vertices of others are
          not read.
        - Output: F_1, F_2, ... concatenated, (B, levels * D), with `residual` M * D more; NaN for a
          sample without any modality. With
          `return_weights=True` a pair of this and a tuple of the importances (B, M) and the edge
          weights (B, E) of each further level, detached from the graph, in the order of
          `fusion_levels(M, max_level)`.

    Raises:
        TypeError or ValueError: for sizes that are no ints of at least 1, an even width,
            theta <= 0, or vertices of another shape.

    Examples:
        >>> import torch
        >>> from fastmtl.nn import HierarchicalGraphFusion
        >>> fusion = HierarchicalGraphFusion(num_modalities=3, features=16)
        >>> fused, weights = fusion(torch.randn(4, 3, 16), return_weights=True)
        >>> fused.shape, [tuple(w.shape) for w in weights]
        (torch.Size([4, 48]), [(4, 3), (4, 3), (4, 6)])
    """

    def __init__(
        self,
        num_modalities: int,
        features: int,
        theta: float = 0.5,
        max_level: int = 3,
        *,
        attention_channels: int = 8,
        pair_channels: int = 4,
        pair_kernel_size: int = 3,
        share_pairs: bool = True,
        similarity_norm: bool = False,
        level_norm: bool = False,
        residual: bool = False,
        negative_slope: float = 0.01,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.num_modalities = need_size("num_modalities", num_modalities)
        self.features = need_size("features", features)
        need_number("theta", theta, above=0)
        self.theta = theta
        self.similarity_norm = need_flag("similarity_norm", similarity_norm)
        self.level_norm = need_flag("level_norm", level_norm)
        self.residual = need_flag("residual", residual)
        self.attention = DynamicAttentionUnit(
            num_modalities, attention_channels, negative_slope=negative_slope, **factory
        )
        self.levels = nn.ModuleList(
            _PairNetwork(
                level.edges,
                features,
                pair_channels,
                pair_kernel_size,
                share_pairs,
                negative_slope,
                **factory,
            )
            for level in fusion_levels(num_modalities, max_level)
        )
        self.gain: nn.Parameter | None = None
        if residual:
            self.gain = nn.Parameter(torch.full((1 + len(self.levels),), _GAIN, **factory))

    @property
    def out_features(self) -> int:
        """Features of the fused vector: levels * D, with `residual` M * D more."""
        parts = 1 + len(self.levels) + (self.num_modalities if self.residual else 0)
        return parts * self.features

    def forward(
        self, vertices: Tensor, return_weights: bool = False, present: Tensor | None = None
    ) -> Tensor | tuple[Tensor, tuple[Tensor, ...]]:
        fused, weights = self.fuse(vertices, present)
        return (fused, weights) if return_weights else fused

    def fuse(
        self, vertices: Tensor, present: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What a call with `return_weights=True` gives."""
        need_sizes("vertices", vertices, ("B", self.num_modalities, self.features))
        count: int | Tensor = self.num_modalities
        if present is not None:
            need_present("present", present, tuple(vertices.shape[:2]), vertices)
            vertices, count = without_absent(vertices, present), present.sum(1, keepdim=True)
        importance = self.attention(vertices)
        if present is not None:
            importance = importance.masked_fill(~present, 0.0)
        fused = [torch.bmm(importance.unsqueeze(1), vertices).squeeze(1) / count]
        weights = [importance]
        joined, joined_importance = edge_vertices, edge_weights = vertices, importance
        joined_present = edge_present = present
        level: Any
        for index, level in enumerate(self.levels):
            if index > 0:
                joined = torch.cat((edge_vertices, vertices), 1)
                joined_importance = torch.cat((edge_weights, importance), 1)
                if present is not None and edge_present is not None:
                    joined_present = torch.cat((edge_present, present), 1)
            edge_vertices = level(joined)
            compared = self._standardized(joined) if self.similarity_norm else joined
            if joined_present is not None:
                joined_importance = joined_importance.masked_fill(~joined_present, ABSENT)
            level_fused, edge_weights = ops.graph_fusion(
                compared, joined_importance, level.edges, edge_vertices, self.theta
            )
            if joined_present is not None:
                edge_present = joined_present[:, level.pairs.values].all(2)
                edge_weights = edge_weights.masked_fill(~edge_present, 0.0)
                level_fused = level_fused.masked_fill(~edge_present.any(1, keepdim=True), 0.0)
            fused.append(level_fused)
            weights.append(edge_weights)
        if self.level_norm:
            fused = [self._standardized(level) for level in fused]
        if self.gain is not None:
            fused = [gain * level for gain, level in zip(self.gain, fused, strict=True)]
            fused.append(vertices.flatten(1))
        return torch.cat(fused, 1), tuple(weight.detach() for weight in weights)

    def _standardized(self, vectors: Tensor) -> Tensor:
        return F.layer_norm(vectors, (self.features,))


class _PairNetwork(Layer):
    """CONV(V_a, V_b) for all edges (a, b) of a level at once: (B, P, D) -> (B, E, D)."""

    def __init__(
        self,
        edges: tuple[tuple[int, int], ...],
        features: int,
        channels: int,
        kernel_size: int,
        share: bool,
        negative_slope: float,
        *,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        need_size("pair_channels", channels)
        need_odd("pair_kernel_size", kernel_size)
        self.edges = edges
        self.negative_slope = negative_slope
        self.pairs = Indices(edges, device)
        sets = 1 if share else len(edges)
        self.conv = nn.Conv1d(
            2 * sets,
            channels * sets,
            kernel_size,
            padding=kernel_size // 2,
            groups=sets,
            device=device,
            dtype=dtype,
        )
        self.dense = TaskLinear(channels * features, features, sets, device=device, dtype=dtype)

    def forward(self, vertices: Tensor) -> Tensor:
        batch, _, features = vertices.shape
        edges, sets = len(self.edges), self.dense.num_tasks
        # Rows of all edges for the one set of weights, or of each edge for its own.
        rows = batch * edges // sets
        pairs = vertices[:, self.pairs.values].reshape(rows, 2 * sets, features)
        hidden = F.leaky_relu(self.conv(pairs), self.negative_slope)  # (rows, sets * C, D)
        hidden = hidden.view(rows, sets, self.dense.in_features).transpose(0, 1)
        joined = F.leaky_relu(self.dense(hidden), self.negative_slope)  # (sets, rows, D)
        return joined.transpose(0, 1).reshape(batch, edges, features)
