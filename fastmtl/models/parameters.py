"""How the parameters of a model and of its twin out of `torch.nn` layers correspond."""

from __future__ import annotations

from torch import nn

from fastmtl._deprecation import deprecated
from fastmtl.models.base import MultiTaskModel
from fastmtl.models.pairs import ParameterPair


def paired_parameters(model: MultiTaskModel, twin: nn.Module) -> list[ParameterPair]:
    """Pair each parameter of `twin` with the part of the parameter of `model` it stands for.

    For each pair, `parameter[part]` has the shape and meaning of `twin`, and `parameter.grad[part]`
    that of `twin.grad`.

    Args:
        model: a model of `fastmtl.models`.
        twin: what its `to_torch()` gave.

    Raises:
        TypeError: for the twin of another kind of model.
        ValueError: for that of a model of other sizes.

    Examples:
        >>> from fastmtl.models import MTMLAN, paired_parameters
        >>> model = MTMLAN(in_features=4, num_tasks=2, hidden_size=3)
        >>> pairs = paired_parameters(model, model.to_torch())
        >>> all(parameter[part].equal(twin) for parameter, part, twin in pairs)
        True
    """
    if not model.is_twin(twin):
        raise TypeError(
            f"twin: expected what to_torch of the model, {type(model).__name__}, gives, "
            f"got {type(twin).__name__}"
        )
    pairs = model.pairs(twin)
    for parameter, part, own in pairs:
        if parameter[part].shape != own.shape:
            raise ValueError(
                "twin: expected the sizes of the model, got a parameter of shape "
                f"{tuple(own.shape)} for one of {tuple(parameter[part].shape)}"
            )
    return pairs


def reference_parameters(model: MultiTaskModel, reference: nn.Module) -> list[ParameterPair]:
    """`paired_parameters` by its old name."""
    deprecated("reference_parameters is now paired_parameters")
    return paired_parameters(model, reference)
