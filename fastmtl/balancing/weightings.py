"""TorchJD's weightings: those that need more than the Gramian, and those that have a state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

_PRODUCTS = "needs products of gradients from independent batches, which no Gramian holds"
_NEED_MORE = {
    "ExcessMTLWeighting": "needs the squared gradients, element by element",
    "SDMGradWeighting": _PRODUCTS,
    "MoDoWeighting": _PRODUCTS,
    "_NashMTLWeighting": "needs the gradients; fastmtl.balancing.NashMTL finds the same",
    "Aggregator": "takes the gradients; pass its weighting, UPGradWeighting() for UPGrad()",
}
# By what TorchJD's weightings with a state tell that it is of as many tasks as they are given.
_STATE_KEYS: dict[str, Callable[[Any], object]] = {
    "GradVacWeighting": lambda weighting: (len(weighting._phi_t), weighting._phi_t.dtype),
    "PCDWeighting": lambda weighting: len(weighting._sq_norm_ema),
}


def make_room(weighting: nn.Module, state: Mapping[str, Tensor], prefix: str) -> None:
    """Make the buffers of a weighting that are in the state to be loaded, but for a weighting that
    was never called are not there yet: those of TorchJD's are not."""
    for name, module in weighting.named_modules(prefix=prefix):
        absent = [key for key, buffer in module._buffers.items() if buffer is None]
        for key in absent:
            if f"{name}.{key}" in state:
                module._buffers[key] = torch.empty_like(state[f"{name}.{key}"])
        key_of = _STATE_KEYS.get(type(module).__name__)
        if key_of is not None and any(module._buffers[key] is not None for key in absent):
            module._state_key = key_of(module)


def need_gramian_weighting(weighting: Any) -> None:
    """Raise unless `weighting` can be called, and is none of TorchJD's that would compute something
    else from a Gramian, in silence."""
    if not callable(weighting):
        raise TypeError(f"weighting: expected a callable, got {type(weighting).__name__}")
    for kind in type(weighting).__mro__:
        if kind.__module__.partition(".")[0] == "torchjd" and kind.__name__ in _NEED_MORE:
            raise TypeError(
                "weighting: expected a function of the Gramian, got TorchJD's "
                f"{type(weighting).__name__}, which {_NEED_MORE[kind.__name__]}"
            )
