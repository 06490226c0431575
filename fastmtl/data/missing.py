"""Samples that lack some of their modalities.

Such a row of features is NaN at every valid step, or has the length 0. Of features that have been
checked the first value tells.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fastmtl.data.errors import DataError


def absent_rows(x: Tensor, lengths: Tensor | None) -> Tensor | None:
    """Which rows (N,) of checked features a sample lacks; None if none.

    Args:
        x: (N, D), or (N, L, D) with `lengths` (N,) or None.

    Examples:
        >>> absent_rows(torch.tensor([[1.0, 2.0], [torch.nan, torch.nan]]), None)
        tensor([False,  True])
    """
    first = x[:, 0] if x.dim() == 2 else x[:, 0, 0]
    absent = first.isnan() if x.is_floating_point() else torch.zeros_like(first, dtype=torch.bool)
    if lengths is not None and x.dim() == 3:
        absent |= (lengths == 0).to(x.device)
    return absent if bool(absent.any()) else None


def need_some(source: str, absent: Mapping[str, Tensor | None], rows: Tensor | None = None) -> None:
    """Raise DataError naming the first sample that lacks every modality.

    Args:
        source: what the data is called in messages.
        absent: for every modality what `absent_rows` gave.
        rows: (N,), what the samples are called; by default their number.
    """
    there = [each for each in absent.values() if each is not None]
    if not there or len(there) < len(absent):
        return
    none = torch.stack([each.cpu() for each in there]).all(0)
    if bool(none.any()):
        row = int(none.nonzero()[0])
        got = f"none in row {row if rows is None else int(rows[row])}"
        raise DataError.at(source, "x", "at least one modality in every sample", got)
