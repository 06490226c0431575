"""Hashed n-grams of text."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastmtl.media.encoders.base import Computed, Setting
from fastmtl.media.errors import MediaError
from fastmtl.media.piece import Piece
from fastmtl.media.texts import read_text

_WORD = re.compile(r"\w+")


def hashed(setting: Setting, *, size: int = 256, ngrams: int = 2) -> Computed:
    """Counts of the words and n-grams of a text, each in the column that its hash says.

    x[h(g) mod size] += s(g) sqrt(count(g)) for every n-gram g of 1 to `ngrams` words in lower case,
    with h and the sign s out of the CRC-32 of g; then x is divided by its norm (Weinberger et al.,
    2009, Feature hashing for large scale multitask learning).

    Args:
        setting: has no effect.
        size: columns.
        ngrams: words of the longest n-gram.
    """
    if not 1 <= size <= 1 << 20:
        raise MediaError(f"size: expected 1 to {1 << 20} columns, got {size}")
    if not 1 <= ngrams <= 8:
        raise MediaError(f"ngrams: expected 1 to 8 words, got {ngrams}")
    content = {"version": 1, "size": size, "ngrams": ngrams}
    return Computed(HashedText(size, ngrams), size, sequence=False, content=content)


@dataclass(frozen=True)
class HashedText:
    """Reads text and hashes it; see `hashed`."""

    size: int
    ngrams: int

    def read(self, source: Path | str) -> Piece:
        """(size,) float32."""
        words = _WORD.findall(read_text(source).lower())
        counts = Counter(
            " ".join(words[i : i + n])
            for n in range(1, self.ngrams + 1)
            for i in range(len(words) - n + 1)
        )
        x = np.zeros(self.size, np.float32)
        for gram, count in counts.items():
            code = zlib.crc32(gram.encode())
            x[(code >> 1) % self.size] += (1 - 2 * (code & 1)) * np.sqrt(count)
        return Piece(x / max(float(np.linalg.norm(x)), 1e-12))
