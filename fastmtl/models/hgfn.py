"""HGFN: hierarchical graph fusion of modalities, then one network per task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from fastmtl.models.fusion_model import FusionModel
from fastmtl.models.modalities import Lengths, Present
from fastmtl.models.pairs import ParameterPair, layer_pairs
from fastmtl.models.torch_graph_fusion import TorchGraphFusion
from fastmtl.models.torch_twins import TorchFusionModel
from fastmtl.nn import HierarchicalGraphFusion
from fastmtl.nn.fusion_levels import edge_names


class HGFN(FusionModel):
    """Hierarchical graph fusion network over any number of modalities.

    Each modality becomes a vector V_m of `hidden_size` h: a vector by a linear layer, a sequence by
    a bidirectional GRU of `gru_layers` layers and size h per direction, attention over time and a
    linear layer; then LeakyReLU and dropout. `HierarchicalGraphFusion` fuses them to F, levels * h.
    A `SharedLinear` to h, and for each task a linear layer to `head_size`, LeakyReLU and a linear
    layer give the logits.

    Args:
        modalities: the features D_m of each modality by name, in the order of the fusion graph.
        num_tasks: T.
        hidden_size: h.
        theta: as in `HierarchicalGraphFusion`, and so `max_level`, `attention_channels`,
            `pair_channels`, `share_pairs`, and what is not in the paper, `similarity_norm`,
            `level_norm` and `residual`. With `residual` the weights by which the `SharedLinear`
            reads the V_m start as if it read nothing else.
        sequence_modalities: the names of those that are sequences.
        group_sizes: the number of logits of each task, that of its classes C, or 1 for a binary
            task; None where all are binary.
        head_size: features between the two layers of a task.
        gru_layers: layers of a sequence's GRU.
        attention_size: rows of the first matrix of its attention.
        interaction: whether the tasks exchange features before the last layer (`TaskInteraction`,
            a baseline's unit).
        dropout: probability of zeroing an entry of the V_m and between a GRU's layers.
        device: where the parameters are.
        dtype: that of the parameters.

    Shape:
        - x: a dict with (B, D_m) or (B, L_m, D_m) for each modality.
        - lengths: of the sequences, a tensor (B,) that holds for all of them, a dict of such by
          modality, or None where nothing is padded; int64 on the CPU, from 1 to L_m. Padded steps
          are not read.
        - present: bool (B,) for each modality that some samples lack, on the device of x; None
          where none do. What x has of an absent one is not read; `HierarchicalGraphFusion` says how
          it is left out. A sample without any modality has logits NaN.
        - Output: logits (B, T), or (B, sum C) with `group_sizes`.

    Raises:
        TypeError or ValueError: for sizes that are no ints of at least 1, names that are no
            modality, a `dropout` outside [0, 1), or another input.

    Examples:
        >>> import torch
        >>> from fastmtl.models import HGFN
        >>> model = HGFN({"text": 100, "video": 16}, num_tasks=3, sequence_modalities=["video"])
        >>> x = {"text": torch.randn(4, 100), "video": torch.randn(4, 10, 16)}
        >>> model(x, lengths=torch.tensor([10, 7, 1, 3])).shape
        torch.Size([4, 3])
    """

    fusion: HierarchicalGraphFusion

    def __init__(
        self,
        modalities: Mapping[str, int],
        num_tasks: int,
        hidden_size: int = 128,
        theta: float = 0.5,
        *,
        sequence_modalities: Iterable[str] = (),
        group_sizes: Sequence[int] | None = None,
        max_level: int = 3,
        head_size: int = 64,
        gru_layers: int = 1,
        attention_size: int = 64,
        attention_channels: int = 8,
        pair_channels: int = 4,
        share_pairs: bool = True,
        similarity_norm: bool = False,
        level_norm: bool = False,
        residual: bool = False,
        interaction: bool = False,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        fusion_options: dict[str, Any] = {
            "theta": theta,
            "max_level": max_level,
            "attention_channels": attention_channels,
            "pair_channels": pair_channels,
            "share_pairs": share_pairs,
            "similarity_norm": similarity_norm,
            "level_norm": level_norm,
            "residual": residual,
        }
        super().__init__(
            partial(HierarchicalGraphFusion, **fusion_options),
            modalities,
            num_tasks,
            hidden_size,
            sequence_modalities=sequence_modalities,
            group_sizes=group_sizes,
            head_size=head_size,
            gru_layers=gru_layers,
            attention_size=attention_size,
            interaction=interaction,
            dropout=dropout,
            device=device,
            dtype=dtype,
        )
        self._config |= fusion_options
        if residual:
            self._start_beside_concatenation()

    @overload
    def fusion_weights(
        self,
        x: Mapping[str, Tensor],
        lengths: Lengths = None,
        present: Present = None,
        *,
        named: Literal[False] = False,
    ) -> tuple[Tensor, ...]: ...

    @overload
    def fusion_weights(
        self,
        x: Mapping[str, Tensor],
        lengths: Lengths = None,
        present: Present = None,
        *,
        named: Literal[True],
    ) -> tuple[dict[str, Tensor], ...]: ...

    def fusion_weights(
        self,
        x: Mapping[str, Tensor],
        lengths: Lengths = None,
        present: Present = None,
        *,
        named: bool = False,
    ) -> tuple[Tensor, ...] | tuple[dict[str, Tensor], ...]:
        """Importances (B, M) of the modalities and edge weights (B, E) of each further level.

        `fastmtl.nn.fusion_levels(len(modalities), max_level)` gives the edges of each level. With
        `named` each level is a dict of (B,): the importances by modality, the weights by what their
        edge joins, "text+audio" or, a level up, "(text+audio)+video". All are detached from the
        graph; the arguments and errors are those of a call.

        Examples:
            >>> import torch
            >>> from fastmtl.models import HGFN
            >>> model = HGFN({"text": 8, "audio": 4}, num_tasks=3)
            >>> x = {"text": torch.randn(5, 8), "audio": torch.randn(5, 4)}
            >>> [list(level) for level in model.fusion_weights(x, named=True)]
            [['text', 'audio'], ['text+audio']]
        """
        weights: tuple[Tensor, ...] = self.fusion.fuse(*self._encode(x, lengths, present))[1]
        if not named:
            return weights
        names = (tuple(self.modalities), *self.edge_names())
        return tuple(
            dict(zip(own, level.unbind(1), strict=True))
            for own, level in zip(names, weights, strict=True)
        )

    def edge_names(self) -> tuple[tuple[str, ...], ...]:
        """What `fusion_weights` calls the edges of levels 2, 3, ..."""
        return edge_names(list(self.modalities), self._config["max_level"])

    @torch.no_grad()
    def _start_beside_concatenation(self) -> None:
        """Let the shared layer read the vectors as one does that has no levels beside them.

        A layer's weights start the smaller, the more it reads: with the levels beside them the
        vectors would start at a lower scale than in concatenation.
        """
        features = len(self.modalities) * self.hidden_size
        weight: Any = self.shared.weight
        bias: Any = self.shared.bias
        for part in (weight[:, -features:], bias):
            nn.init.uniform_(part, -(features**-0.5), features**-0.5)

    def to_torch(self) -> TorchFusionModel:
        levels: Any = self.fusion.levels
        fusion = TorchGraphFusion(
            self.hidden_size,
            self.fusion.theta,
            attention_channels=self._config["attention_channels"],
            pair_channels=self._config["pair_channels"],
            pair_networks=[level.dense.num_tasks for level in levels],
            similarity_norm=self.fusion.similarity_norm,
            level_norm=self.fusion.level_norm,
            residual=self.fusion.residual,
        )
        return self._copied_to(self._around(fusion))

    def is_twin(self, twin: nn.Module) -> bool:
        return isinstance(twin, TorchFusionModel) and isinstance(twin.fusion, TorchGraphFusion)

    def _fusion_pairs(self, fusion: Any) -> list[ParameterPair]:
        unit = self.fusion.attention
        pairs = layer_pairs(unit.expand, (), fusion.attention[0])
        pairs += layer_pairs(unit.reduce, (), fusion.attention[2])
        level: Any
        for level, networks in zip(self.fusion.levels, fusion.levels, strict=True):
            for edge, network in enumerate(networks):
                channels = network.conv.out_channels
                own = slice(edge * channels, (edge + 1) * channels)
                pairs += layer_pairs(level.conv, (own,), network.conv)
                pairs += layer_pairs(level.dense, (edge,), network.dense)
        if self.fusion.gain is not None:
            pairs.append(ParameterPair(self.fusion.gain, (), fusion.gain))
        return pairs
