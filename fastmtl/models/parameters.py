"""How the parameters of a model and of its reference correspond."""

from __future__ import annotations

from torch import nn

from fastmtl.models.hgfn import HGFN
from fastmtl.models.mtmlan import MTMLAN
from fastmtl.models.reference import ParameterPair, ReferenceHGFN, ReferenceMTMLAN


def reference_parameters(model: MTMLAN | HGFN, reference: nn.Module) -> list[ParameterPair]:
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
    if isinstance(model, MTMLAN) and isinstance(reference, ReferenceMTMLAN):
        return _of_one_size(reference.pairs(model))
    if isinstance(model, HGFN) and isinstance(reference, ReferenceHGFN):
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
