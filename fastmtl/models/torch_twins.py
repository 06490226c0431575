"""The networks of the models out of `torch.nn` layers alone, one layer for each task and edge.

They are built from sizes and know nothing of the models, which give them their weights: what is
compared with a model shares no code with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fastmtl.models.torch_graph_fusion import where_present
from fastmtl.nn._module import call


class TorchMTMLAN(nn.Module):
    """The network of `MTMLAN` with one `torch.nn.GRU` and three `torch.nn.Linear` per task; with
    `shared_gru` the tasks hold the same `torch.nn.GRU`."""

    def __init__(
        self,
        in_features: int,
        num_tasks: int,
        hidden_size: int,
        num_layers: int,
        attention_size: int,
        *,
        shared_features: int | None,
        shared_gru: bool,
        dropout: float,
        group_sizes: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        features = in_features if shared_features is None else shared_features
        self.shared = None if shared_features is None else nn.Linear(in_features, features)
        self.tasks = nn.ModuleList(
            RecurrentAttention(features, hidden_size, num_layers, attention_size, dropout)
            for _ in range(num_tasks)
        )
        if shared_gru:
            task: Any
            first: Any = self.tasks[0]
            for task in self.tasks:
                task.gru = first.gru
        self.drop = nn.Dropout(dropout)
        sizes = [1] * num_tasks if group_sizes is None else group_sizes
        self.outputs = nn.ModuleList(nn.Linear(2 * hidden_size, size) for size in sizes)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        contexts = [context for context, _ in self._attend(x, lengths)]
        logits = [
            output(self.drop(context))
            for output, context in zip(self.outputs, contexts, strict=True)
        ]
        return torch.cat(logits, 1)

    def attention(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        return torch.stack([weights for _, weights in self._attend(x, lengths)], 1)

    def _attend(self, x: Tensor, lengths: Tensor | None) -> list[tuple[Tensor, Tensor]]:
        if self.shared is not None:
            x = self.shared(x)
        return [task(x, lengths) for task in self.tasks]


class TorchCMLC(nn.Module):
    """The network of `CMLC`: a `torch.nn.GRU` and a `torch.nn.Linear`, or one for each task with
    `group_sizes`."""

    def __init__(
        self,
        in_features: int,
        num_tasks: int,
        hidden_size: int,
        num_layers: int,
        dropout: float,
        group_sizes: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.gru = _bidirectional(in_features, hidden_size, num_layers, dropout)
        self.drop = nn.Dropout(dropout)
        sizes = [num_tasks] if group_sizes is None else group_sizes
        self.outputs = nn.ModuleList(nn.Linear(2 * hidden_size, size) for size in sizes)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        if lengths is None:
            final = self.gru(x)[1]
        else:
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            final = self.gru(packed)[1]
        last = self.drop(torch.cat([final[-2], final[-1]], 1))
        return torch.cat([output(last) for output in self.outputs], 1)


class TorchFusionModel(nn.Module):
    """The network of a `FusionModel` around `fusion`, from vectors (B, M, h) to one."""

    def __init__(
        self,
        fusion: nn.Module,
        fused_features: int,
        modalities: Mapping[str, int],
        group_sizes: Sequence[int],
        hidden_size: int,
        *,
        sequence_modalities: Sequence[str],
        head_size: int,
        gru_layers: int,
        attention_size: int,
        interaction: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.sequence_modalities = tuple(sequence_modalities)
        self.encoders = nn.ModuleList(
            _SequenceEncoder(features, hidden_size, gru_layers, attention_size, dropout)
            if name in sequence_modalities
            else nn.Linear(features, hidden_size)
            for name, features in modalities.items()
        )
        self.fusion = fusion
        self.drop = nn.Dropout(dropout)
        self.shared = nn.Linear(fused_features, hidden_size)
        self.heads = nn.ModuleList(nn.Linear(hidden_size, head_size) for _ in group_sizes)
        self.interaction = _Interaction(head_size, len(group_sizes)) if interaction else None
        self.outputs = nn.ModuleList(nn.Linear(head_size, size) for size in group_sizes)

    def forward(
        self,
        x: Mapping[str, Tensor],
        lengths: Tensor | Mapping[str, Tensor | None] | None = None,
        present: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        if present is not None:
            x = {
                name: value if name not in present else where_present(present[name], value)
                for name, value in x.items()
            }
        vectors = []
        for name, encoder in zip(self.modalities, self.encoders, strict=True):
            own = lengths.get(name) if isinstance(lengths, Mapping) else lengths
            sequence = name in self.sequence_modalities
            vectors.append(encoder(x[name], own) if sequence else encoder(x[name]))
        stacked = self.drop(F.leaky_relu(torch.stack(vectors, 1)))
        if present is None:
            fused = self.fusion(stacked)
        else:
            every = torch.ones(len(stacked), dtype=torch.bool, device=stacked.device)
            there = torch.stack([present.get(name, every) for name in self.modalities], 1)
            fused = self.fusion(stacked, there)
            fused = fused.masked_fill(~there.any(1, keepdim=True), torch.nan)
        shared = self.shared(fused)
        hidden = [F.leaky_relu(head(shared)) for head in self.heads]
        if self.interaction is not None:
            hidden = self.interaction(hidden)
        return torch.cat([o(h) for o, h in zip(self.outputs, hidden, strict=True)], 1)


class RecurrentAttention(nn.Module):
    """A bidirectional GRU and attention over its states: (B, L, D) -> (B, 2h), (B, L)."""

    def __init__(
        self,
        features: int,
        hidden_size: int,
        num_layers: int,
        attention_size: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.gru = _bidirectional(features, hidden_size, num_layers, dropout)
        self.w1 = nn.Linear(2 * hidden_size, attention_size, bias=False)
        self.w2 = nn.Linear(attention_size, 1, bias=False)

    def forward(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        if lengths is None:
            states, _ = self.gru(x)
        else:
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            states, _ = pad_packed_sequence(
                self.gru(packed)[0], batch_first=True, total_length=x.shape[1]
            )
        scores = self.w2(self.w1(states).tanh()).squeeze(2)
        if lengths is not None:
            steps = torch.arange(x.shape[1], device=x.device)
            scores = scores.masked_fill(steps >= lengths.to(x.device).unsqueeze(1), -torch.inf)
        weights = scores.softmax(1)
        return (weights.unsqueeze(2) * states).sum(1), weights


class _SequenceEncoder(nn.Module):
    def __init__(
        self,
        features: int,
        hidden_size: int,
        num_layers: int,
        attention_size: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.states = RecurrentAttention(features, hidden_size, num_layers, attention_size, dropout)
        self.project = nn.Linear(2 * hidden_size, hidden_size)

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        context, _ = self.states(x, lengths)
        return call(self.project, context)


class _Interaction(nn.Module):
    """The exchange of features between tasks, pair by pair."""

    def __init__(self, features: int, num_tasks: int) -> None:
        super().__init__()
        tasks = range(num_tasks)
        self.edges = [(k, source) for k in tasks for source in tasks if source != k]
        self.gates = nn.ModuleList(nn.Linear(features, features) for _ in self.edges)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        result = list(features)
        for (task, source), gate in zip(self.edges, self.gates, strict=True):
            result[task] = result[task] + gate(features[source]).sigmoid() * features[source]
        return result


def _bidirectional(features: int, hidden_size: int, num_layers: int, dropout: float) -> nn.GRU:
    return nn.GRU(
        features, hidden_size, num_layers, batch_first=True, dropout=dropout, bidirectional=True
    )
