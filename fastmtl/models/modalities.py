"""What a model of several modalities is made for and given: names, lengths, what samples lack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from fastmtl._checks import need_size
from fastmtl.nn.presence import need_present

Lengths = Tensor | Mapping[str, Tensor | None] | None
Present = Mapping[str, Tensor] | None


def checked_modalities(modalities: Mapping[str, int]) -> dict[str, int]:
    if not isinstance(modalities, Mapping):
        raise TypeError(
            f"modalities: expected a dict of features by name, got {type(modalities).__name__}"
        )
    if not modalities:
        raise ValueError("modalities: expected at least one modality, got none")
    for name in modalities:
        if not isinstance(name, str):
            raise TypeError(f"modalities: expected names that are strings, got {name!r}")
    return {name: need_size(f"modalities[{name!r}]", size) for name, size in modalities.items()}


def checked_sequences(names: Iterable[str], modalities: dict[str, int]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise TypeError(f"sequence_modalities: expected a list of names, got the string {names!r}")
    names = tuple(names)
    if not set(names) <= set(modalities):
        raise ValueError(
            f"sequence_modalities: expected some of {list(modalities)}, got {list(names)}"
        )
    return names


def need_modalities(x: Mapping[str, Tensor], modalities: Mapping[str, int]) -> None:
    """Raise unless `x` has a tensor for each of the modalities, and no other."""
    if not isinstance(x, Mapping):
        raise TypeError(f"x: expected a dict of tensors, got {type(x).__name__}")
    if set(x) != set(modalities):
        raise ValueError(f"x: expected the modalities {list(modalities)}, got {list(x)}")


def lengths_by_modality(lengths: Lengths, sequences: Sequence[str]) -> Mapping[str, Tensor | None]:
    """The lengths of each sequence, of which those given once hold for all."""
    if not isinstance(lengths, Mapping):
        if lengths is not None and not sequences:
            raise ValueError("lengths: expected None, since no modality is a sequence, got some")
        return dict.fromkeys(sequences, lengths)
    if not set(lengths) <= set(sequences):
        raise ValueError(
            f"lengths: expected lengths of the sequences {list(sequences)}, "
            f"got those of {list(lengths)}"
        )
    return lengths


def zeros_for_absent(
    x: Mapping[str, Tensor], present: Mapping[str, Tensor], modalities: Sequence[str]
) -> tuple[dict[str, Tensor], Tensor]:
    """The features with 0 for absent ones, and which are present, (B, M)."""
    if not isinstance(present, Mapping):
        raise TypeError(f"present: expected a dict of tensors, got {type(present).__name__}")
    if not present or not set(present) <= set(modalities):
        raise ValueError(f"present: expected some of {list(modalities)}, got {list(present)}")
    clean = dict(x)
    for name, each in present.items():
        need_present(f"present[{name!r}]", each, (x[name].shape[0],), x[name])
        absent = each.logical_not().view(-1, *[1] * (x[name].dim() - 1))
        clean[name] = x[name].masked_fill(absent, 0.0)
    first = next(iter(present.values()))
    every = torch.ones_like(first)
    return clean, torch.stack([present.get(name, every) for name in modalities], 1)
