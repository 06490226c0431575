"""Arrays as the fields of a data set: each checked, all held against each other, with a split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastmtl.data import checks
from fastmtl.data.classes import check_classes, check_trainable_classes, need_class_tasks
from fastmtl.data.errors import DataError
from fastmtl.data.lengths import Lengths, check_lengths, of_modality
from fastmtl.data.missing import need_some
from fastmtl.data.splits import IntArray, complete_split
from fastmtl.data.stored import Values, absent_if_read
from fastmtl.data.tasks import default_label_names


class _Labels(NamedTuple):
    """Labels (N, t), and behind them the multi-class tasks: their numbers (N,), and classes."""

    binary: Tensor
    coded: dict[str, tuple[Tensor, list[str]]]

    def columns(self) -> Tensor:
        """All of them, (N, T)."""
        columns = [column for column, _ in self.coded.values()]
        return torch.column_stack([self.binary, *columns]) if columns else self.binary

    def names(self, source: str, names: Any) -> list[str]:
        """Those of the labels checked, or by default numbered; none is of two tasks."""
        count = self.binary.shape[1]
        given = default_label_names(count) if names is None else names
        checked = checks.check_label_names(source, given, count)
        if (twice := checks.repeated([*checked, *self.coded])) is not None:
            raise DataError.at(source, f"y_{twice}", "another name than a label's", repr(twice))
        return checked


def fields_from_arrays(
    x: Any,
    y: Any,
    *,
    lengths: Any,
    label_names: Any,
    classes: Mapping[str, Any],
    class_names: Mapping[str, Any],
    split: Any,
    group: Any,
    sample_names: Any,
    name: str,
    seed: int,
    for_training: bool,
) -> dict[str, Any]:
    """The fields of `MultiTaskData`, from what its `from_arrays` takes.

    Raises:
        DataError: for arrays that cannot be used.
    """
    features = _check_features(name, x)
    count = len(next(iter(features.values())))
    need_labels = for_training and not classes
    labels = _check_labels(name, y, classes, class_names, None if need_labels else count)
    length = None if lengths is None else check_lengths(name, lengths, features)
    codes = None if split is None else checks.check_split(name, split)
    groups = None if group is None else checks.check_group(name, group)
    if sample_names is not None:
        sample_names = checks.check_strings(name, "sample_names", sample_names)
    others = {"split": codes, "group": groups, "sample_names": sample_names}
    _check_counts(name, features, labels, length, others)
    names = labels.names(name, label_names)
    features, missing = _check_values(name, features, length)
    full = complete_split(codes, groups, count, seed)
    warnings = _check_trainable(name, labels, names, full) if for_training else ()
    warnings += tuple(f"{name}: {told}" for told in _notable(missing, groups, full))
    by_modality = {key.removeprefix("x_"): value for key, value in features.items()}
    return {
        "x": by_modality if isinstance(x, Mapping) else features["x"],
        "y": labels.columns(),
        "split": torch.from_numpy(full),
        "label_names": [*names, *labels.coded],
        "lengths": length,
        "group": None if groups is None else torch.from_numpy(groups),
        "sample_names": sample_names,
        "name": name,
        "warnings": warnings,
        "class_names": {task: of_task for task, (_, of_task) in labels.coded.items()},
    }


def _check_features(source: str, x: Any) -> dict[str, Values]:
    """The features by field: `x`, or `x_<modality>`."""
    parts = {f"x_{k}": v for k, v in x.items()} if isinstance(x, Mapping) else {"x": x}
    if not parts:
        raise DataError.at(source, "x", "at least one modality", "none")
    return {key: checks.check_features(source, key, value) for key, value in parts.items()}


def _check_labels(
    source: str,
    y: Any,
    classes: Mapping[str, Any],
    class_names: Mapping[str, Any],
    count: int | None,
) -> _Labels:
    """The labels; None for `y` is no column of `count` rows, where these are given."""
    unlabelled = y is None and count is not None
    labels = torch.empty(count or 0, 0) if unlabelled else checks.check_labels(source, y)
    need_class_tasks(source, classes, class_names)
    coded = {t: check_classes(source, t, v, class_names.get(t)) for t, v in classes.items()}
    return _Labels(labels, coded)


def _check_counts(
    source: str,
    features: Mapping[str, Values],
    labels: _Labels,
    lengths: Lengths,
    others: Mapping[str, Any],
) -> None:
    """Raise DataError unless every field has one entry a sample."""
    fields = {**features, "y": labels.binary, **others}
    fields |= {f"y_{task}": column for task, (column, _) in labels.coded.items()}
    if isinstance(lengths, dict):
        fields |= {f"lengths_{modality}": each for modality, each in lengths.items()}
    else:
        fields["lengths"] = lengths
    checks.check_rows(source, {k: len(v) for k, v in fields.items() if v is not None})


def _check_values(
    source: str, features: Mapping[str, Values], lengths: Lengths
) -> tuple[dict[str, Values], dict[str, Tensor | None]]:
    """The features with their padding cleared, and which samples lack each of several."""
    valid = {key: of_modality(lengths, key.removeprefix("x_")) for key in features}
    checked = checks.check_values(source, features, valid)
    if len(checked) < 2:
        return checked, {}
    missing = {key: absent_if_read(values, valid[key]) for key, values in checked.items()}
    need_some(source, missing)
    return checked, missing


def _check_trainable(
    source: str, labels: _Labels, names: list[str], split: IntArray
) -> tuple[str, ...]:
    """What a user should know of the labels; DataError if nothing can be trained with them."""
    warnings = checks.check_trainable(source, labels.binary, split, names)
    for task, (column, classes) in labels.coded.items():
        warnings += check_trainable_classes(source, task, column, split, classes)
    return warnings


def _notable(
    missing: Mapping[str, Tensor | None], groups: IntArray | None, split: IntArray
) -> list[str]:
    """What a user should know of samples that lack a modality, and of groups in several splits."""
    told = [
        f"{int(each.sum())} of {len(split)} samples have no {key}"
        for key, each in missing.items()
        if each is not None
    ]
    if groups is not None and (mixed := _mixed_groups(groups, split)):
        told.append(f"{mixed} groups have samples in more than one split")
    return told


def _mixed_groups(groups: IntArray, split: IntArray) -> int:
    """Number of groups with samples in more than one split."""
    pairs = np.unique(np.stack([groups, split]), axis=1)
    return int((np.bincount(pairs[0]) > 1).sum())
