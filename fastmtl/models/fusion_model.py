"""What HGFN and its baselines share: encoders of the modalities, and a network per task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastmtl._checks import need_probability, need_size, need_sizes
from fastmtl.models.base import MultiTaskModel
from fastmtl.models.groups import by_sample, checked_groups, used_columns
from fastmtl.models.modalities import (
    Lengths,
    Present,
    checked_modalities,
    checked_sequences,
    lengths_by_modality,
    need_modalities,
    zeros_for_absent,
)
from fastmtl.models.pairs import ParameterPair, attention_pairs, gru_pairs, layer_pairs
from fastmtl.models.torch_twins import TorchFusionModel
from fastmtl.nn import SharedLinear, TaskAttention, TaskGRU, TaskInteraction, TaskLinear
from fastmtl.nn._module import Layer, call
from fastmtl.nn.balance_at import BalanceAt
from fastmtl.nn.sequence import need_lengths


class FusionModel(MultiTaskModel):
    """Encoders of the modalities, a fusion of their vectors, and a network for each task.

    Each modality becomes a vector V_m of `hidden_size` h: a vector by a linear layer, a sequence by
    a bidirectional GRU of `gru_layers` layers and size h per direction, attention over time and a
    linear layer; then LeakyReLU and dropout. `make_fusion(M, h, device=, dtype=)` gives the module
    that fuses (B, M, h), and `present` (B, M) where some are absent, to (B, `out_features`). A
    `SharedLinear` to h, and for each task a linear layer to `head_size`, LeakyReLU and a linear
    layer give the logits; with `interaction` the tasks exchange features (`TaskInteraction`) before
    the last layer.

    Dropout comes before the fusion: behind it, every fused vector would hand on what has been
    dropped from the others.
    """

    shared: SharedLinear

    def __init__(
        self,
        make_fusion: Callable[..., Any],
        modalities: Mapping[str, int],
        num_tasks: int,
        hidden_size: int,
        *,
        sequence_modalities: Iterable[str],
        group_sizes: Sequence[int] | None,
        head_size: int,
        gru_layers: int,
        attention_size: int,
        interaction: bool,
        dropout: float,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.modalities = checked_modalities(modalities)
        self.sequence_modalities = checked_sequences(sequence_modalities, self.modalities)
        self.num_tasks = need_size("num_tasks", num_tasks)
        self.hidden_size = need_size("hidden_size", hidden_size)
        self.head_size = need_size("head_size", head_size)
        self.group_sizes = checked_groups(group_sizes, num_tasks)
        need_probability("dropout", dropout)
        self._config: dict[str, Any] = {
            "modalities": self.modalities,
            "num_tasks": num_tasks,
            "hidden_size": hidden_size,
            "sequence_modalities": list(self.sequence_modalities),
            "group_sizes": None if group_sizes is None else list(self.group_sizes),
            "head_size": head_size,
            "gru_layers": gru_layers,
            "attention_size": attention_size,
            "interaction": interaction,
            "dropout": dropout,
        }
        # A list, since a ModuleDict does not take every name.
        self.encoders = nn.ModuleList(
            _SequenceEncoder(features, hidden_size, gru_layers, attention_size, dropout, **factory)
            if name in self.sequence_modalities
            else nn.Linear(features, hidden_size, **factory)
            for name, features in self.modalities.items()
        )
        self.fusion = make_fusion(len(self.modalities), hidden_size, **factory)
        self.drop = nn.Dropout(dropout)
        self.shared = SharedLinear(self.fusion.out_features, hidden_size, num_tasks, **factory)
        self.head = TaskLinear(hidden_size, head_size, num_tasks, **factory)
        self.interaction = TaskInteraction(head_size, num_tasks, **factory) if interaction else None
        self.output = TaskLinear(head_size, max(self.group_sizes), num_tasks, **factory)
        self.columns = used_columns(self.group_sizes, device)

    def forward(
        self, x: Mapping[str, Tensor], lengths: Lengths = None, present: Present = None
    ) -> Tensor:
        vectors, there = self._encode(x, lengths, present)
        if there is None:
            fused = self.fusion(self.drop(vectors))
        else:
            fused = self.fusion(self.drop(vectors), present=there)
            fused = fused.masked_fill(~there.any(1, keepdim=True), torch.nan)
        hidden = F.leaky_relu(self.head(self.shared(fused)))
        if self.interaction is not None:
            hidden = self.interaction(hidden)
        return by_sample(self.output(hidden), self.columns)

    def attention(
        self, x: Mapping[str, Tensor], lengths: Lengths = None, present: Present = None
    ) -> dict[str, Tensor]:
        """Attention weights (B, L) over time of each modality that is a sequence.

        They are 0 at padded steps and 1 in sum, but 0 of a modality that a sample lacks; the
        arguments and errors are those of a call.
        """
        x, by_modality, there = self._checked(x, lengths, present)
        found = {}
        for place, name in enumerate(self.modalities):
            if name not in self.sequence_modalities:
                continue
            encoder: Any = self.encoders[place]
            weights = encoder.attend(x[name], by_modality.get(name))[1]
            if there is not None:
                weights = weights.masked_fill(~there[:, place, None], 0)
            found[name] = weights
        return found

    def _encode(
        self, x: Mapping[str, Tensor], lengths: Lengths, present: Present
    ) -> tuple[Tensor, Tensor | None]:
        """The modalities' vectors, (B, M, h), and which are present, (B, M); None if all are."""
        x, by_modality, there = self._checked(x, lengths, present)
        vectors = [
            encoder(x[name], by_modality.get(name))
            if name in self.sequence_modalities
            else encoder(x[name])
            for name, encoder in zip(self.modalities, self.encoders, strict=True)
        ]
        return F.leaky_relu(torch.stack(vectors, 1)), there

    def _checked(
        self, x: Mapping[str, Tensor], lengths: Lengths, present: Present
    ) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor | None], Tensor | None]:
        """The features with 0 for absent ones, the lengths by modality, and what is present."""
        need_modalities(x, self.modalities)
        by_modality = lengths_by_modality(lengths, self.sequence_modalities)
        batch: int | str = "B"
        for name, features in self.modalities.items():
            steps = ("L",) if name in self.sequence_modalities else ()
            need_sizes(f"x[{name!r}]", x[name], (batch, *steps, features))
            self._need_dtype(f"x[{name!r}]", x[name])
            batch = x[name].shape[0]
            if steps:
                need_lengths(by_modality.get(name), batch, x[name].shape[1], f"lengths of {name!r}")
        if present is None:
            return x, by_modality, None
        x, there = zeros_for_absent(x, present, tuple(self.modalities))
        return x, by_modality, there

    def config(self) -> dict[str, Any]:
        return deepcopy(self._config)

    def pairs(self, twin: Any) -> list[ParameterPair]:
        pairs = []
        ours: Any
        for ours, own in zip(self.encoders, twin.encoders, strict=True):
            if isinstance(ours, _SequenceEncoder):
                pairs += gru_pairs(ours.gru, 0, own.states.gru)
                pairs += attention_pairs(ours.attention, 0, own.states)
                pairs += layer_pairs(ours.project, (), own.project)
            else:
                pairs += layer_pairs(ours, (), own)
        pairs += self._fusion_pairs(twin.fusion)
        pairs += layer_pairs(self.shared, (), twin.shared)
        for task, (head, output) in enumerate(zip(twin.heads, twin.outputs, strict=True)):
            pairs += layer_pairs(self.head, (task,), head)
            pairs += layer_pairs(self.output, (task, slice(output.out_features)), output)
        if self.interaction is not None:
            for index, gate in enumerate(twin.interaction.gates):
                pairs += layer_pairs(self.interaction.gates, (index,), gate)
        return pairs

    def _fusion_pairs(self, fusion: Any) -> list[ParameterPair]:
        raise NotImplementedError

    def _around(self, fusion: nn.Module) -> TorchFusionModel:
        """The twin around that of the fusion."""
        config = self._config
        return TorchFusionModel(
            fusion,
            self.fusion.out_features,
            self.modalities,
            self.group_sizes,
            self.hidden_size,
            sequence_modalities=self.sequence_modalities,
            head_size=self.head_size,
            gru_layers=config["gru_layers"],
            attention_size=config["attention_size"],
            interaction=config["interaction"],
            dropout=config["dropout"],
        )

    def task_weight(self, balance_at: BalanceAt) -> SharedLinear | nn.Parameter:
        """As `MultiTaskModel.task_weight`; only "last" with `interaction`, since below the exchange
        every task's loss reaches the weights of every other task."""
        if self.interaction is not None and balance_at in ("shared", "first"):
            raise ValueError(
                "balance_at: expected last, since the tasks of this model interact, "
                f"got {balance_at!r}"
            )
        return super().task_weight(balance_at)

    def _head_weight(self, balance_at: Literal["first", "last"]) -> nn.Parameter:
        return self.head.weight if balance_at == "first" else self.output.weight


class _SequenceEncoder(Layer):
    """A sequence (B, L, D) as a vector (B, h)."""

    def __init__(
        self,
        features: int,
        hidden_size: int,
        num_layers: int,
        attention_size: int,
        dropout: float,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.gru = TaskGRU(
            features, hidden_size, 1, num_layers, dropout=dropout, bidirectional=True, **factory
        )
        self.attention = TaskAttention(self.gru.out_features, attention_size, 1, **factory)
        self.project = nn.Linear(self.gru.out_features, hidden_size, **factory)

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return call(self.project, self.attend(x, lengths)[0])

    def attend(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """The context (B, 2h) and the weights (B, L) of its steps."""
        context, weights = self.attention(self.gru(x, lengths), lengths)
        return context[0], weights[0]
