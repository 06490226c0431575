"""What a function of the Gramian cannot be: the classes of TorchJD that need more than that."""

from __future__ import annotations

from typing import Any

_PRODUCTS = "needs products of gradients from independent batches, which no Gramian holds"
_NEED_MORE = {
    "ExcessMTLWeighting": "needs the squared gradients, element by element",
    "SDMGradWeighting": _PRODUCTS,
    "MoDoWeighting": _PRODUCTS,
    "_NashMTLWeighting": "needs the gradients; fastmtl.balancing.NashMTL finds the same",
    "Aggregator": "takes the gradients; pass its weighting, UPGradWeighting() for UPGrad()",
}


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
