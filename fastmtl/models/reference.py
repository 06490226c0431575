"""The models' twins out of `torch.nn` layers alone, for comparison."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

if TYPE_CHECKING:
    from fastmtl.models.cmlc import CMLC
    from fastmtl.models.fusion_baseline import FusionBaseline
    from fastmtl.models.fusion_model import FusionModel, Lengths
    from fastmtl.models.hgfn import HGFN
    from fastmtl.models.mtmlan import MTMLAN
    from fastmtl.nn import SharedLinear, TaskAttention, TaskGRU, TaskInteraction


class ParameterPair(NamedTuple):
    """`parameter[part]` of a model stands for the parameter `twin` of its reference.

    Example:
        >>> from fastmtl.models import MTMLAN, reference_parameters
        >>> model = MTMLAN(in_features=4, num_tasks=2, hidden_size=3)
        >>> pair = reference_parameters(model, model.reference())[0]
        >>> pair.parameter.shape, pair.part, pair.twin.shape
        (torch.Size([2, 2, 9, 4]), (0, 0), torch.Size([9, 4]))
    """

    parameter: nn.Parameter
    part: tuple[int | slice, ...]
    twin: Tensor


class ReferenceMTMLAN(nn.Module):
    """The network of an `MTMLAN` with one `torch.nn.GRU` and three `torch.nn.Linear` per task."""

    def __init__(self, model: MTMLAN) -> None:
        super().__init__()
        self.shared = None if model.shared is None else _linear_like(model.shared)
        self.tasks = nn.ModuleList(
            _RecurrentAttention(model.gru, model.task_attention) for _ in range(model.num_tasks)
        )
        self.drop = nn.Dropout(model.dropout)
        self.outputs = nn.ModuleList(
            nn.Linear(model.output.in_features, 1) for _ in range(model.num_tasks)
        )
        _take_weights(self, model, self.pairs(model))

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

    def pairs(self, model: MTMLAN) -> list[ParameterPair]:
        pairs = []
        if model.shared is not None and self.shared is not None:
            pairs += _layer_pairs(model.shared, (), self.shared)
        attention: Any
        for task, (attention, output) in enumerate(zip(self.tasks, self.outputs, strict=True)):
            pairs += attention.pairs(model.gru, model.task_attention, task)
            pairs += _layer_pairs(model.output, (task,), output)
        return pairs


class ReferenceCMLC(nn.Module):
    """The network of a `CMLC`: a `torch.nn.GRU` and a `torch.nn.Linear`."""

    def __init__(self, model: CMLC) -> None:
        super().__init__()
        self.gru = _gru_like(model.gru)
        self.drop = nn.Dropout(model.dropout)
        self.output = nn.Linear(model.output.in_features, model.num_tasks)
        _take_weights(self, model, self.pairs(model))

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        if lengths is None:
            final = self.gru(x)[1]
        else:
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            final = self.gru(packed)[1]
        logits: Tensor = self.output(self.drop(torch.cat([final[-2], final[-1]], 1)))
        return logits

    def pairs(self, model: CMLC) -> list[ParameterPair]:
        weight, bias = model.output.weight, model.output.bias
        assert bias is not None
        pairs = _gru_pairs(model.gru, 0, self.gru)
        rows = slice(None)
        pairs.append(ParameterPair(weight, (rows, 0), self.output.weight))
        pairs.append(ParameterPair(bias, (rows, 0), self.output.bias))
        return pairs


class ReferenceFusion(nn.Module):
    """The network of a `FusionModel` around the twin of its fusion."""

    def __init__(self, model: FusionModel) -> None:
        super().__init__()
        self.modalities = tuple(model.modalities)
        self.encoders = nn.ModuleList(
            _linear_like(encoder) if isinstance(encoder, nn.Linear) else _SequenceEncoder(encoder)
            for encoder in model.encoders
        )
        self.activation = nn.LeakyReLU()
        self.drop = nn.Dropout(model.drop.p)
        self.shared = _linear_like(model.shared)
        self.heads = nn.ModuleList(
            nn.Linear(model.hidden_size, model.head_size) for _ in model.group_sizes
        )
        self.interaction = None if model.interaction is None else _Interaction(model.interaction)
        self.outputs = nn.ModuleList(nn.Linear(model.head_size, size) for size in model.group_sizes)

    def forward(self, x: Mapping[str, Tensor], lengths: Lengths = None) -> Tensor:
        vectors = []
        for name, encoder in zip(self.modalities, self.encoders, strict=True):
            own = lengths.get(name) if isinstance(lengths, Mapping) else lengths
            sequence = isinstance(encoder, _SequenceEncoder)
            vector = encoder(x[name], own) if sequence else encoder(x[name])
            vectors.append(self.activation(vector))
        shared = self.shared(self.drop(self._fuse(vectors)))
        hidden = [self.activation(head(shared)) for head in self.heads]
        if self.interaction is not None:
            hidden = self.interaction(hidden)
        return torch.cat([o(h) for o, h in zip(self.outputs, hidden, strict=True)], 1)

    def _fuse(self, vectors: list[Tensor]) -> Tensor:
        raise NotImplementedError

    def pairs(self, model: Any) -> list[ParameterPair]:
        pairs = []
        ours: Any
        twin: Any
        for ours, twin in zip(model.encoders, self.encoders, strict=True):
            if isinstance(twin, _SequenceEncoder):
                pairs += twin.states.pairs(ours.gru, ours.attention, 0)
                pairs += _layer_pairs(ours.project, (), twin.project)
            else:
                pairs += _layer_pairs(ours, (), twin)
        pairs += _layer_pairs(model.shared, (), self.shared)
        for task, (head, output) in enumerate(zip(self.heads, self.outputs, strict=True)):
            pairs += _layer_pairs(model.head, (task,), head)
            pairs += _layer_pairs(model.output, (task, slice(output.out_features)), output)
        if self.interaction is not None:
            pairs += self.interaction.pairs(model.interaction)
        return pairs


class ReferenceBaseline(ReferenceFusion):
    """The network of a `FusionBaseline`, whose fusion is of `torch.nn` layers already."""

    def __init__(self, model: FusionBaseline) -> None:
        super().__init__(model)
        self.fusion = deepcopy(model.fusion)
        _take_weights(self, model, self.pairs(model))

    def _fuse(self, vectors: list[Tensor]) -> Tensor:
        fused: Tensor = self.fusion(torch.stack(vectors, 1))
        return fused

    def pairs(self, model: FusionBaseline) -> list[ParameterPair]:
        own = zip(model.fusion.parameters(), self.fusion.parameters(), strict=True)
        return super().pairs(model) + [ParameterPair(ours, (), twin) for ours, twin in own]


class ReferenceHGFN(ReferenceFusion):
    """The network of an `HGFN` with a `torch.nn` layer for each of its layers, edge by edge."""

    def __init__(self, model: HGFN) -> None:
        super().__init__(model)
        self.theta = model.fusion.theta
        unit = model.fusion.attention
        self.attention = nn.Sequential(
            nn.Conv2d(1, unit.expand.out_channels, 5, padding=2),
            nn.LeakyReLU(),
            nn.Conv2d(unit.expand.out_channels, 1, 1),
            nn.LeakyReLU(),
        )
        self.levels = nn.ModuleList(
            _pairs_like(level, model.hidden_size) for level in model.fusion.levels
        )
        _take_weights(self, model, self.pairs(model))

    def _fuse(self, vectors: list[Tensor]) -> Tensor:
        image = torch.stack(vectors, 1).unsqueeze(1)
        importance = self.attention(image).squeeze(1).mean(-1).unbind(1)
        single = [
            _Vertex(frozenset([modality]), vector, weight)
            for modality, (vector, weight) in enumerate(zip(vectors, importance, strict=True))
        ]
        fused = [_weighted_sum(single) / len(single)]
        below: list[_Vertex] = []
        networks: Any
        for size, networks in enumerate(self.levels, start=2):
            candidates = list(combinations(below or single, 2))
            candidates += [(a, b) for a in below for b in single]
            edges = [(a, b) for a, b in candidates if len(a.members | b.members) == size]
            scores = [
                (a.importance + b.importance) / (_similarity(a.vector, b.vector) + self.theta)
                for a, b in edges
            ]
            weights = torch.stack(scores, 1).softmax(1).unbind(1)
            own = list(networks) * (len(edges) // len(networks))
            below = [
                _Vertex(a.members | b.members, network(a.vector, b.vector), weight)
                for (a, b), network, weight in zip(edges, own, weights, strict=True)
            ]
            fused.append(_weighted_sum(below))
        return torch.cat(fused, 1)

    def pairs(self, model: HGFN) -> list[ParameterPair]:
        pairs = super().pairs(model)
        pairs += _layer_pairs(model.fusion.attention.expand, (), self.attention[0])
        pairs += _layer_pairs(model.fusion.attention.reduce, (), self.attention[2])
        level: Any
        networks: Any
        for level, networks in zip(model.fusion.levels, self.levels, strict=True):
            for edge, network in enumerate(networks):
                channels = network.conv.out_channels
                own = slice(edge * channels, (edge + 1) * channels)
                pairs += _layer_pairs(level.conv, (own,), network.conv)
                pairs += _layer_pairs(level.dense, (edge,), network.dense)
        return pairs


class _Interaction(nn.Module):
    """The exchange of features between tasks, pair by pair."""

    def __init__(self, unit: TaskInteraction) -> None:
        super().__init__()
        tasks = range(unit.num_tasks)
        self.edges = [(k, source) for k in tasks for source in tasks if source != k]
        self.gates = nn.ModuleList(nn.Linear(unit.features, unit.features) for _ in self.edges)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        result = list(features)
        for (task, source), gate in zip(self.edges, self.gates, strict=True):
            result[task] = result[task] + gate(features[source]).sigmoid() * features[source]
        return result

    def pairs(self, unit: TaskInteraction) -> list[ParameterPair]:
        return [
            pair
            for index, gate in enumerate(self.gates)
            for pair in _layer_pairs(unit.gates, (index,), gate)
        ]


class _Vertex(NamedTuple):
    members: frozenset[int]
    vector: Tensor  # (B, D)
    importance: Tensor  # (B,)


def _weighted_sum(vertices: list[_Vertex]) -> Tensor:
    return torch.stack([v.importance.unsqueeze(1) * v.vector for v in vertices]).sum(0)


def _similarity(a: Tensor, b: Tensor) -> Tensor:
    return F.cosine_similarity(a.softmax(1), b.softmax(1), dim=1)


class _Pair(nn.Module):
    def __init__(self, channels: int, kernel_size: int, features: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, channels, kernel_size, padding=kernel_size // 2)
        self.dense = nn.Linear(channels * features, features)
        self.activation = nn.LeakyReLU()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        hidden = self.activation(self.conv(torch.stack((a, b), 1)))
        vector: Tensor = self.activation(self.dense(hidden.flatten(1)))
        return vector


class _RecurrentAttention(nn.Module):
    """A bidirectional GRU and attention over its states: (B, L, D) -> (B, 2h), (B, L)."""

    def __init__(self, gru: TaskGRU, attention: TaskAttention) -> None:
        super().__init__()
        self.gru = _gru_like(gru)
        self.w1 = nn.Linear(attention.input_size, attention.attention_size, bias=False)
        self.w2 = nn.Linear(attention.attention_size, 1, bias=False)

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

    def pairs(self, gru: TaskGRU, attention: TaskAttention, task: int) -> list[ParameterPair]:
        pairs = _gru_pairs(gru, task, self.gru)
        pairs.append(ParameterPair(attention.w1, (task,), self.w1.weight))
        pairs.append(ParameterPair(attention.w2, (slice(task, task + 1),), self.w2.weight))
        return pairs


class _SequenceEncoder(nn.Module):
    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.states = _RecurrentAttention(encoder.gru, encoder.attention)
        self.project = _linear_like(encoder.project)

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        context, _ = self.states(x, lengths)
        vector: Tensor = self.project(context)
        return vector


def _linear_like(layer: nn.Linear | SharedLinear) -> nn.Linear:
    return nn.Linear(layer.in_features, layer.out_features)


def _gru_like(gru: TaskGRU) -> nn.GRU:
    return nn.GRU(
        gru.input_size,
        gru.hidden_size,
        gru.num_layers,
        batch_first=True,
        dropout=gru.dropout,
        bidirectional=gru.bidirectional,
    )


def _gru_pairs(ours: TaskGRU, task: int, twin: nn.GRU) -> list[ParameterPair]:
    return [
        ParameterPair(parameter, (task, direction), getattr(twin, name + suffix))
        for name, parameter in ours.named_parameters()
        for direction, suffix in enumerate(("", "_reverse")[: ours.num_directions])
    ]


def _pairs_like(level: Any, features: int) -> nn.ModuleList:
    """One pair network, or with weights for each edge one per edge."""
    sets, kernel_size = level.dense.num_tasks, level.conv.kernel_size[0]
    channels = level.conv.out_channels // sets
    return nn.ModuleList(_Pair(channels, kernel_size, features) for _ in range(sets))


def _layer_pairs(ours: Any, part: tuple[int | slice, ...], twin: Any) -> list[ParameterPair]:
    """The pairs of two layers that both have `weight` and `bias`."""
    return [
        ParameterPair(ours.weight, part, twin.weight),
        ParameterPair(ours.bias, part, twin.bias),
    ]


@torch.no_grad()
def _take_weights(twin: nn.Module, model: nn.Module, pairs: list[ParameterPair]) -> None:
    """Give the twin the model's weights, dtype, device and training mode."""
    twin.to(next(model.parameters())).train(model.training)
    for parameter, part, own in pairs:
        own.copy_(parameter[part])
