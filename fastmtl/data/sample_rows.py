"""Features of samples that are asked for again whenever they are used."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastmtl.data.checks import as_array
from fastmtl.data.errors import DataError
from fastmtl.data.rows import Array, Rows

Sample = tuple[dict[str, Array], Array, Any]


def parse(source: str, row: int, sample: Any) -> Sample:
    """Features by modality (a single array is called "x"), labels (T,) and lengths of a sample."""
    if not isinstance(sample, Sequence) or len(sample) not in (2, 3):
        kind = type(sample).__name__
        got = f"{len(sample)} parts" if isinstance(sample, Sequence) else f"a {kind}"
        raise DataError.at(source, f"sample {row}", "(x, y) or (x, y, lengths)", got)
    x = sample[0] if isinstance(sample[0], Mapping) else {"x": sample[0]}
    features = {name: as_array(value) for name, value in x.items()}
    if not features:
        raise DataError.at(source, f"x of sample {row}", "at least one modality", "none")
    for name, value in features.items():
        if value.dtype.kind not in "fiub" or value.ndim not in (1, 2) or 0 in value.shape:
            got = f"{value.dtype} of shape {value.shape}"
            raise DataError.at(source, f"{name} of sample {row}", "numbers (D,) or (L, D)", got)
    y = as_array(sample[1])
    if y.ndim != 1:
        raise DataError.at(source, f"y of sample {row}", "labels (T,)", f"shape {y.shape}")
    lengths = sample[2] if len(sample) == 3 else None
    if isinstance(lengths, Mapping):
        return features, y, {name: int(value) for name, value in lengths.items()}
    return features, y, None if lengths is None else int(lengths)


def check_like(source: str, row: int, x: Mapping[str, Array], like: Mapping[str, Array]) -> None:
    """Raise DataError unless features have modalities of others, and their sizes but for L."""
    if not set(x) <= set(like):
        expected = f"some of the modalities {', '.join(like)}"
        raise DataError.at(source, f"x of sample {row}", expected, ", ".join(x))
    for name, value in x.items():
        other = like[name].shape
        if value.ndim != len(other) or value.shape[-1] != other[-1]:
            expected = f"shape {other} as others have, but for the steps"
            raise DataError.at(source, f"{name} of sample {row}", expected, f"{value.shape}")


def put(value: Array, out: Array) -> None:
    """Write features (D,) or (L, D) over the beginning of others that are as long at least."""
    out[(slice(len(value)) if value.ndim == 2 else ...)] = value


class Fetched:
    """The last samples that were asked for: each modality of them is read in turn.

    Args:
        source: what the data is called in messages.
        parts: that are indexed, one behind the other.
        like: the first features that there are of each modality.
    """

    def __init__(self, source: str, parts: Sequence[Any], like: Mapping[str, Array]) -> None:
        self.source = source
        self.like = like
        self.parts = parts
        self.starts = np.cumsum([0, *(len(part) for part in parts)])
        self._lock = threading.Lock()
        self._rows = np.empty(0, np.int64)
        self._left: dict[str, list[Array | None]] = {}

    def __len__(self) -> int:
        return int(self.starts[-1])

    def take(self, rows: NDArray[np.int64], name: str) -> list[Array | None]:
        """The features of one modality of some samples; None for one that lacks it."""
        with self._lock:
            if name not in self._left or not np.array_equal(rows, self._rows):
                samples = [self._features(row) for row in rows.tolist()]
                self._left = {each: [x.get(each) for x in samples] for each in self.like}
                self._rows = rows.copy()
            return self._left.pop(name)

    def _features(self, row: int) -> dict[str, Array]:
        part = int(np.searchsorted(self.starts, row, side="right")) - 1
        x, _, _ = parse(self.source, row, self.parts[part][row - int(self.starts[part])])
        check_like(self.source, row, x, self.like)
        return x


class SampleRows(Rows):
    """One modality of the samples, sequences padded to `shape` with 0; NaN where one lacks it."""

    def __init__(
        self, fetched: Fetched, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        super().__init__(fetched.source, name, (len(fetched), *shape), dtype)
        self.fetched = fetched

    def read(self, rows: NDArray[np.int64], out: Array) -> None:
        out[...] = 0
        for value, place in zip(self.fetched.take(rows, self.field), out, strict=True):
            if value is None:
                place[...] = np.nan
                continue
            if value.ndim == 2 and len(value) > len(place):
                expected = f"{len(place)} steps at most, as when the samples were first read"
                raise DataError.at(self.source, self.field, expected, str(len(value)))
            with np.errstate(over="ignore"):
                put(value, place)
