"""What a file ships: a run's model from features as they are in data to probabilities."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from fastmtl._checks import need_size
from fastmtl.data.lengths import Lengths, of_modality
from fastmtl.training import Predictor
from fastmtl.training.recipes import FUSION_MODELS

# Other than 1, which torch.export takes for a constant, and than each other.
_BATCH, _STEPS = 3, 5


class Deployed(nn.Module):
    """The standardisation, the model and the sigmoid of a run, or the softmax over the classes of a
    task that has several, for evaluation on the CPU.

    Called with a tensor for each of `names`, in their order, and behind them with `lengths` where
    the model reads sequences; with lengths of each, in their order, where those of the training
    data had lengths or numbers of steps of their own. The run's model is copied.

    Args:
        predictor: the run, of several modalities if samples may lack some.
        missing: whether samples may lack modalities: a row that is NaN, or a length of 0 among
            those of each sequence.
        steps: L of every sequence, where it is to be fixed; shorter ones are padded, and have
            lengths.

    Shape:
        - features: (B, D), or (B, L, D) of a modality in `sequences`.
        - lengths: (B,), int64, from 1 to L, or such of each sequence.
        - Output: probabilities (B, T), those of `predictor.tasks.columns()`; NaN of a
          sample that lacks every modality.

    Raises:
        ValueError: for `missing` with a single modality, and `steps` below 1.

    Examples:
        >>> deployed = Deployed(Predictor.load("runs/disaster"))  # doctest: +SKIP
        >>> deployed(torch.randn(8, 40, 128), torch.full((8,), 40)).shape  # doctest: +SKIP
        torch.Size([8, 7])
    """

    def __init__(
        self, predictor: Predictor, *, missing: bool = False, steps: int | None = None
    ) -> None:
        super().__init__()
        self.sizes: dict[str, int] = dict(predictor.description["features"])
        self.names = list(self.sizes)
        if missing and len(self.names) < 2:
            got = ", ".join(self.names)
            raise ValueError(f"missing: expected a model of several modalities, got one of {got}")
        self.missing = missing
        self.sequences: list[str] = list(predictor.description["sequences"])
        if steps is not None:
            need_size("steps", steps)
        self.steps = steps
        # Runs of before there were such do not say it.
        self.own_lengths = bool(predictor.description.get("own_lengths", False))
        self.multimodal = predictor.config.model in FUSION_MODELS or self.names != ["x"]
        self.model = copy.deepcopy(predictor.model).cpu().eval().requires_grad_(False)
        self.standardizer = predictor.standardizer
        self.tasks = predictor.tasks
        self.temperatures = predictor.temperatures
        self.eval()

    def forward(self, *inputs: Tensor) -> Tensor:
        features, lengths = self.arguments(*inputs)
        told = {}
        if self.missing:
            told = {"present": {n: _there(x, of_modality(lengths, n)) for n, x in features.items()}}
            if isinstance(lengths, dict):
                # Of a missing sequence one step is read, and left out.
                lengths = {name: each.clamp(min=1) for name, each in lengths.items()}
        if self.standardizer is not None:
            transform = self.standardizer.transform_modality
            features = {
                name: transform(name, x, of_modality(lengths, name)) for name, x in features.items()
            }
        logits: Tensor = self.model(features if self.multimodal else features["x"], lengths, **told)
        return self.tasks.probabilities(logits, self.temperatures)

    def arguments(self, *inputs: Tensor) -> tuple[dict[str, Tensor], Lengths]:
        """The features by modality, and the lengths, that it is called with."""
        features = dict(zip(self.names, inputs, strict=False))
        if self.own_lengths:
            return features, dict(zip(self.sequences, inputs[len(self.names) :], strict=True))
        return features, inputs[-1] if self.sequences else None

    def inputs(self) -> list[str]:
        """The names of what it is called with."""
        if self.own_lengths:
            return [*self.names, *(f"lengths_{name}" for name in self.sequences)]
        return [*self.names, "lengths"] if self.sequences else self.names

    def example(self, batch: int = _BATCH, steps: int = _STEPS) -> tuple[Tensor, ...]:
        """Random inputs, the sequences from the longest to the shortest; with lengths of their own
        each has a step more than the one before. With `missing` the last sample lacks the first
        modality. Where the steps are fixed all have these."""
        own = {name: steps + i * self.own_lengths for i, name in enumerate(self.sequences)}
        if self.steps is not None:
            own = dict.fromkeys(own, self.steps)
        shapes = {name: (own[name],) if name in own else () for name in self.names}
        found = [torch.randn(batch, *shapes[name], size) for name, size in self.sizes.items()]
        if self.missing:
            found[0][-1] = torch.nan
        for most in own.values() if self.own_lengths else list(own.values())[:1]:
            found.append(torch.arange(most, most - batch, -1).clamp(min=1))
        return tuple(found)

    def program(self) -> torch.export.ExportedProgram:
        """The graph, for any batch and, where it is not fixed, any number of steps."""
        batch = torch.export.Dim("batch")
        steps = [
            torch.export.Dim(f"steps_{i}" if self.own_lengths else "steps")
            for i in range(len(self.sequences))
        ]
        of_sequences = dict(zip(self.sequences, steps, strict=True)) if self.steps is None else {}
        dynamic: list[dict[int, Any]] = [
            {0: batch, 1: of_sequences[name]} if name in of_sequences else {0: batch}
            for name in self.inputs()
        ]
        with torch.no_grad():
            return torch.export.export(self, self.example(), dynamic_shapes=(tuple(dynamic),))


def _there(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Which rows (B,) of features a sample has, as the first value and the length say."""
    if x.dim() == 2:
        return ~x[:, 0].isnan()
    there = ~x[:, 0, 0].isnan()
    return there if lengths is None else there & (lengths > 0)
