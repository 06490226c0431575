"""What a field of a data set must look like: arrays in, tensors out, or a DataError."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastmtl.data.errors import DataError
from fastmtl.data.rows import Array, Rows
from fastmtl.data.splits import SPLITS, IntArray
from fastmtl.data.stored import StoredFeatures, Values
from fastmtl.data.tasks import POSITIVE, is_positive

_CHUNK_BYTES = 32 << 20


def chunk_rows(x: Values, itemsize: int = 8) -> int:
    """Rows of `x` that take about 32 MiB at `itemsize` bytes a value, at least one."""
    per_row = max(x.numel() // max(x.shape[0], 1), 1) * itemsize
    return max(_CHUNK_BYTES // per_row, 1)


def padding_mask(x: Tensor, lengths: Tensor) -> Tensor:
    """True at the padded steps of the sequences `x` (N, L, D): (N, L, 1) bool."""
    steps = torch.arange(x.shape[1], device=x.device)
    return (steps >= lengths.to(x.device)[:, None])[..., None]


def as_array(value: Any) -> Array:
    """A numpy view of an array, tensor or nested list."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    return np.asarray(value)


def check_features(source: str, field: str, value: Any) -> Values:
    """Features (N, D) or (N, L, D) as float32, without a look at the values yet."""
    array = value if isinstance(value, Rows) else as_array(value)
    if array.dtype.kind not in "fiub":
        raise DataError.at(source, field, "numbers", f"an array of {array.dtype}")
    if array.ndim not in (2, 3) or 0 in array.shape:
        expected = "a non-empty (N, D) or (N, L, D) array"
        raise DataError.at(source, field, expected, f"shape {array.shape}")
    if isinstance(array, Rows):
        return StoredFeatures(array)
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.require(array, np.float32, ["C", "W"]))


def clear_padding(x: Tensor, lengths: Tensor) -> Tensor:
    """Sequences `x` (N, L, D) with 0 at the padded steps; `x` itself where they already are 0."""
    rows = chunk_rows(x, itemsize=4)
    for start in range(0, len(x), rows):
        part = x[start : start + rows]
        if (part.ne(0) & padding_mask(part, lengths[start : start + rows])).any():
            return x.masked_fill(padding_mask(x, lengths), 0.0)
    return x


def check_finite(
    source: str, field: str, x: Tensor, lengths: Tensor | None = None, *, optional: bool = False
) -> None:
    """Raise if `x` holds NaN or an infinity: how many, and where the first is.

    With `optional` rows that are NaN at every valid step count as missing, and are none of them.
    """
    rows, count, first = chunk_rows(x, itemsize=4), 0, ""
    for start in range(0, len(x), rows):
        part = x[start : start + rows]
        bad = ~torch.isfinite(part)
        here = int(bad.sum())
        if here and optional:
            lacking = part.isnan()
            if lengths is not None:
                lacking |= padding_mask(part, lengths[start : start + rows])
            bad[lacking.flatten(1).all(1)] = False
            here = int(bad.sum())
        if here and not count:
            at = bad.nonzero()[0].tolist()
            at[0] += start
            names = ("row", "column") if x.dim() == 2 else ("row", "step", "column")
            first = ", ".join(f"{name} {i}" for name, i in zip(names, at, strict=True))
        count += here
    if count:
        got = f"{count} NaN or infinite (as float32), the first at {first}"
        raise DataError.at(source, field, "finite numbers", got)


def check_values(
    source: str, features: Mapping[str, Values], lengths: Mapping[str, Tensor | None]
) -> dict[str, Values]:
    """The features with 0 at padded steps; raise if any other value is NaN or infinite.

    Those that stay in a file do and are checked whenever some are read. `lengths` are those of each
    of the `features`, None for one without padding. Of several features rows may be missing.
    """
    optional = len(features) > 1
    out: dict[str, Values] = {}
    for field, x in features.items():
        if isinstance(x, StoredFeatures):
            out[field] = StoredFeatures(x.rows, lengths[field], optional=optional)
            continue
        valid = lengths[field] if x.dim() == 3 else None
        cleared = x if valid is None else clear_padding(x, valid)
        check_finite(source, field, cleared, valid, optional=optional)
        out[field] = cleared
    return out


def check_labels(source: str, value: Any) -> Tensor:
    """Labels (N, T) as float32 from 0 to 1, and NaN."""
    array = as_array(value)
    if array.dtype.kind not in "fiub":
        raise DataError.at(source, "y", "numbers from 0 to 1 or NaN (missing)", f"{array.dtype}")
    if array.ndim != 2 or 0 in array.shape:
        expected = "a non-empty (N, T) array, one column per task"
        raise DataError.at(source, "y", expected, f"shape {array.shape}")
    good = (array >= 0) & (array <= 1)
    if array.dtype.kind == "f":
        good |= np.isnan(array)
    if not good.all():
        row, column = np.argwhere(~good)[0].tolist()
        got = f"{array[row, column].item()!r} at row {row}, column {column}"
        raise DataError.at(source, "y", "only numbers from 0 to 1 or NaN (missing)", got)
    return torch.from_numpy(array.astype(np.float32))


def check_strings(source: str, field: str, value: Any) -> list[str]:
    """A vector of strings, given as str or UTF-8 bytes."""
    array = as_array(value)
    if array.ndim != 1:
        raise DataError.at(source, field, "a vector of strings", f"shape {array.shape}")
    try:
        out = [v.decode("utf-8") if isinstance(v, bytes) else v for v in array.tolist()]
        # Half of a surrogate pair cannot be written down.
        "".join(v for v in out if isinstance(v, str)).encode()
    except (UnicodeError, ValueError) as error:
        raise DataError.at(source, field, "UTF-8 strings", f"some that are not ({error})") from None
    if not all(isinstance(v, str) for v in out):
        raise DataError.at(source, field, "strings", f"an array of {array.dtype}")
    return out


def repeated(names: Iterable[str]) -> str | None:
    """The first name that was there before, None if all differ.

    Examples:
        >>> repeated(["sea", "sky", "sea"])
        'sea'
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def check_label_names(source: str, value: Any, num_tasks: int) -> list[str]:
    """One distinct name per task."""
    names = check_strings(source, "label_names", value)
    if len(names) != num_tasks:
        got = f"{len(names)} names"
        raise DataError.at(source, "label_names", f"{num_tasks} names, one per column of y", got)
    if (twice := repeated(names)) is not None:
        raise DataError.at(source, "label_names", "distinct names", f"{twice!r} more than once")
    return names


def check_split(source: str, value: Any) -> IntArray:
    """Split codes (N,) from the names train, val and test."""
    names = check_strings(source, "split", value)
    for row, name in enumerate(names):
        if name not in SPLITS:
            raise DataError.at(source, "split", "train, val or test", f"{name!r} at row {row}")
    return np.array([SPLITS.index(name) for name in names], dtype=np.int64)


def check_group(source: str, value: Any) -> IntArray:
    """Group ids (N,) counted from 0, from integers or strings."""
    array = as_array(value)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        array = np.array(check_strings(source, "group", value))
    return np.unique(array, return_inverse=True)[1].reshape(-1).astype(np.int64)


def check_rows(source: str, sizes: Mapping[str, int]) -> None:
    """Raise unless every field has as many rows as the first."""
    reference, num_samples = next(iter(sizes.items()))
    for field, size in sizes.items():
        if size != num_samples:
            expected = f"{num_samples} rows, as many as {reference} has"
            raise DataError.at(source, field, expected, f"{size}")


def check_trainable(
    source: str, y: Tensor, split: IntArray, label_names: Sequence[str]
) -> tuple[str, ...]:
    """Raise if training could not start; return warnings on tasks that have one class only, and on
    labels between 0 and 1."""
    if not (split == SPLITS.index("train")).any():
        raise DataError.at(source, "split", "at least one training sample", "none")
    if not (split == SPLITS.index("val")).any():
        got = "too few training samples (or groups) to take any from"
        raise DataError.at(source, "split", "at least one validation sample", got)
    if y.shape[1] and bool(y.isnan().all()):
        raise DataError.at(source, "y", "at least one label", "only missing ones (NaN)")
    train = y[torch.from_numpy(split == SPLITS.index("train"))]
    warnings = []
    if soft := int(((y > 0) & (y < 1)).sum()):
        warnings.append(
            f"{source}: {soft} labels lie between 0 and 1: losses take them as they are, figures "
            f"and counts as positive from {POSITIVE} on"
        )
    for task, name in enumerate(label_names):
        column = train[:, task]
        column = column[~column.isnan()]
        if not len(column):
            got = f"none for the task {name!r} (column {task})"
            raise DataError.at(source, "y", "labels in the training split", got)
        positive = is_positive(column)
        for there, kind in ((positive, "positive"), (~positive, "negative")):
            if not bool(there.any()):
                warnings.append(f"{source}: the task {name!r} has no {kind} in the training split")
    return tuple(warnings)
