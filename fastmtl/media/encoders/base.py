"""What every encoder is. Decoding processes import it, so it loads no PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fastmtl.media.piece import Piece
from fastmtl.media.sampling import Sampling


class Request(Protocol):
    """What a decoding process is asked for, of each clip; it is sent there once."""

    def read(self, source: Path | str) -> Piece:
        """Read a file, or take a text. Raises MediaError for a file that cannot be used."""
        ...


class Encoder(Protocol):
    """Turns what its request reads into features.

    - `size`: D, of a feature vector;
    - `sequence`: whether a clip becomes a sequence (L, D) of them, or one (D,);
    - `request`: what is read of a clip for it;
    - `content`: JSON-able, what its features depend on besides name and sampling: options and
      weights.
    """

    size: int
    sequence: bool
    request: Request
    content: dict[str, Any]

    def encode(self, pieces: Sequence[Piece]) -> list[Piece]:
        """The features of some clips, float32."""
        ...


@dataclass(frozen=True)
class Setting:
    """What encoders are made for.

    Args:
        sampling: of frames and sound.
        device: that computes, as PyTorch names it.
        precision: float32, bfloat16 or float16.
        batch_size: frames, stretches of sound or texts that are computed at a time.
    """

    sampling: Sampling
    device: str = "cpu"
    precision: str = "float32"
    batch_size: int = 32


class Computed:
    """An encoder whose request computes the features, in the decoding process.

    Args:
        request: what reads and computes.
        size: D.
        sequence: whether of sequences.
        content: its options, with a version of the formula.
    """

    def __init__(
        self, request: Request, size: int, *, sequence: bool, content: dict[str, Any]
    ) -> None:
        self.request = request
        self.size = size
        self.sequence = sequence
        self.content = content

    def encode(self, pieces: Sequence[Piece]) -> list[Piece]:
        """What was read, as it is."""
        return list(pieces)
