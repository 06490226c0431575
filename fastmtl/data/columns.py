"""Cutting some columns out of features."""

from __future__ import annotations

from collections.abc import Sequence

from fastmtl.data.errors import DataError
from fastmtl.data.stored import StoredFeatures, Values

Columns = slice | Sequence[int]


def cut(source: str, name: str, x: Values, columns: Columns) -> Values:
    """Some of the last dimension of `x`, as the modality `name`; DataError if they are not there.

    Examples:
        >>> import torch
        >>> cut("data", "text", torch.eye(3), slice(0, 2)).shape
        torch.Size([3, 2])
    """
    width = x.shape[-1]
    if isinstance(columns, slice):
        stop = width if columns.stop is None else columns.stop
        chosen = list(range(columns.start or 0, stop, columns.step or 1))
    else:
        chosen = [int(column) for column in columns]
    if not chosen or min(chosen) < 0 or max(chosen) >= width:
        expected = f"columns from 0 to {width - 1} for {name!r}"
        raise DataError.at(source, "modalities", expected, _shown(columns))
    if isinstance(x, StoredFeatures):
        return x.then(lambda part, lengths: part[..., chosen])
    return x[..., chosen].contiguous()


def _shown(columns: Columns) -> str:
    """Columns as they are typed."""
    if not isinstance(columns, slice):
        return str(list(columns))
    parts = [columns.start, columns.stop, *([] if columns.step is None else [columns.step])]
    return ":".join("" if part is None else str(part) for part in parts)
