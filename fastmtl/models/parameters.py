"""How the parameters of a model and of its reference correspond."""

from __future__ import annotations

from typing import Any

from torch import nn

from fastmtl.models.base import MultiTaskModel
from fastmtl.models.cmlc import CMLC
from fastmtl.models.fusion_baseline import FusionBaseline
from fastmtl.models.hgfn import HGFN
from fastmtl.models.mtmlan import MTMLAN
from fastmtl.models.reference import (
    ParameterPair,
    ReferenceBaseline,
    ReferenceCMLC,
    ReferenceHGFN,
    ReferenceMTMLAN,
)

_REFERENCES: tuple[tuple[type[MultiTaskModel], type[Any]], ...] = (
    (MTMLAN, ReferenceMTMLAN),
    (CMLC, ReferenceCMLC),
    (HGFN, ReferenceHGFN),
    (FusionBaseline, ReferenceBaseline),
)


def reference_parameters(model: MultiTaskModel, reference: nn.Module) -> list[ParameterPair]:
    """Pair each parameter of `reference` with the part of the parameter of `model` it stands for.

    `reference` is what `model.reference()` gave. For each pair, `parameter[part]` has the shape and
    meaning of `twin`, and `parameter.grad[part]` that of `twin.grad`.

    Raises TypeError for a reference of another kind of model, ValueError for one of other sizes.

    Example:
        >>> from fastmtl.models import MTMLAN, reference_parameters
        >>> model = MTMLAN(in_features=4, num_tasks=2, hidden_size=3)
        >>> pairs = reference_parameters(model, model.reference())
        >>> all(parameter[part].equal(twin) for parameter, part, twin in pairs)
        True
    """
    for kind, twin in _REFERENCES:
        if isinstance(model, kind) and isinstance(reference, twin):
            return _of_one_size(reference.pairs(model))
    raise TypeError(
        f"reference: expected the reference of the model, {type(model).__name__}, "
        f"got {type(reference).__name__}"
    )


def _of_one_size(pairs: list[ParameterPair]) -> list[ParameterPair]:
    for parameter, part, twin in pairs:
        if parameter[part].shape != twin.shape:
            raise ValueError(
                "reference: expected the sizes of the model, got a parameter of shape "
                f"{tuple(twin.shape)} for one of {tuple(parameter[part].shape)}"
            )
    return pairs
