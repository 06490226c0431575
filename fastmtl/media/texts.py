"""Texts of a manifest. Runs in decoding processes, so it loads no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastmtl.media.errors import MediaError
from fastmtl.media.piece import Piece

_MOST_BYTES = 16 << 20


def read_text(source: Path | str) -> str:
    """A text as it stands in a manifest (a str), or that of a file (a Path).

    Raises:
        MediaError: for a file that is not there, is too large, or is not in UTF-8.
    """
    if isinstance(source, str):
        return source
    if not source.is_file():
        raise MediaError("no such file")
    if (size := source.stat().st_size) > _MOST_BYTES:
        raise MediaError(f"expected a text of at most {_MOST_BYTES:,} bytes, got {size:,}")
    try:
        return source.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise MediaError(f"is not a text in UTF-8 ({error})") from None


@dataclass(frozen=True)
class Text:
    """Hands a text over as it is, to an encoder that reads words itself."""

    def read(self, source: Path | str) -> Piece:
        """The text as an array of one string."""
        return Piece(np.array(read_text(source), dtype=object))
