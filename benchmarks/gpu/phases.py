"""In which order figures are taken: what a run that ends early should have comes first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

COMPILED = "torch.compile"


@dataclass(frozen=True)
class Phase:
    """Which sizes and which peers are taken together."""

    first: bool | None  # the first three sizes, the others, or all
    takes: Callable[[str], bool]

    def of(self, sizes: Sequence[Any]) -> Sequence[Any]:
        """The sizes of this phase."""
        return sizes if self.first is None else sizes[:3] if self.first else sizes[3:]


def ours(peer: str) -> bool:
    """Whether a peer is fastmtl."""
    return peer.startswith("fastmtl")


PHASES = [
    Phase(True, ours),
    Phase(True, lambda peer: peer != COMPILED),
    Phase(False, ours),
    Phase(False, lambda peer: peer != COMPILED),
    Phase(None, lambda peer: peer == COMPILED),
]
