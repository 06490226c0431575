"""What one clip gives in one modality."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

Array = NDArray[Any]


class Piece(NamedTuple):
    """What was read, or computed, of one clip in one modality; `cut` is whether of more there is
    than was taken."""

    values: Array
    cut: bool = False
