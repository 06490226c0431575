"""Bringing a data set into the form a model reads, and checking that it fits a stored run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import fastmtl.data
from fastmtl.data import DataError, MultiTaskData
from fastmtl.data.classes import recoded
from fastmtl.data.provenance import check_encoders
from fastmtl.data.tasks import default_label_names
from fastmtl.training.checkpoint import digest, with_prefix
from fastmtl.training.config import TrainConfig
from fastmtl.training.recipes import FUSION_MODELS


def load_data(
    config: TrainConfig,
    spec: str,
    *,
    test: str | None = None,
    xml: str | None = None,
    for_training: bool = True,
    memory: str | None = None,
) -> MultiTaskData:
    """Load a data set and arrange it for a run's model.

    The split of a file that has none is drawn with the run's seed.

    Args:
        config: the run, whose model, modalities and seed count.
        spec: a file or `synthetic:...`; this, `test`, `xml`, `for_training` and `memory` are as for
            `fastmtl.data.load`.
        test: a second file, the test split.
        xml: the labels of an .arff file.
        for_training: False for data that is only predicted or evaluated.
        memory: where the features are kept; None is the run's.

    Raises:
        DataError: for data that cannot be used.

    Examples:
        >>> config = TrainConfig()
        >>> load_data(config, "synthetic:disaster?clips=40&frames=3&features=8").modalities
        {'x': (3, 8)}
    """
    data = fastmtl.data.load(
        spec,
        test=test,
        xml=xml,
        modalities=config.modalities,
        seed=config.seed,
        for_training=for_training,
        memory=config.memory if memory is None else memory,
    )
    return arrange(data, config.model)


def need_trainable(data: MultiTaskData) -> None:
    """Raise DataError where a split to train or validate on is empty, or has no label."""
    for split in ("train", "val"):
        rows = data.indices(split)
        if not len(rows):
            raise DataError.at(data.name, "split", f"samples in {split}", "none")
        if bool(data.y[rows].isnan().all()):
            raise DataError.at(data.name, "y", f"labels in {split}", "only missing ones (NaN)")


def arrange(data: MultiTaskData, model: str) -> MultiTaskData:
    """The same samples as a model reads them.

    "mtmlan" and "cmlc" read one tensor (N, L, D): flat features (N, D) become a sequence of one
    step (N, 1, D). "hgfn" and its baselines read a dictionary: a single tensor becomes the modality
    "x".

    Args:
        data: the samples; arranging them twice is arranging them once.
        model: a name that `TrainConfig.model` takes.

    Raises:
        DataError: for several modalities at a model that reads one.

    Examples:
        >>> data = fastmtl.data.load("synthetic:disaster?clips=40&frames=3&features=8")
        >>> arrange(data, "hgfn").x["x"].shape
        torch.Size([40, 3, 8])
    """
    features = data.features()
    if model in FUSION_MODELS:
        return replace(data, x=features, lengths=data.lengths if _sequences(data) else None)
    if len(features) > 1:
        got = f"{', '.join(features)} (use hgfn, or keep one with --modalities NAME)"
        raise DataError.at(data.name, "x", f"a single modality for {model}", got)
    ((name, x),) = features.items()
    if x.dim() == 2:
        step = x.unsqueeze(1) if isinstance(x, Tensor) else x.then(lambda x, _: x.unsqueeze(1))
        return replace(data, x=step, lengths=None)
    return replace(data, x=x, lengths=data.lengths_of(name))


def describe(data: MultiTaskData) -> dict[str, Any]:
    """What a data set must share with the one a model was trained on, as JSON-able values."""
    features = data.features()
    encoders = {} if data.encoders is None else {"encoders": dict(data.encoders)}
    return {
        "label_names": list(data.label_names),
        "features": {name: value.shape[-1] for name, value in features.items()},
        "sequences": _sequences(data),
        "own_lengths": _have_own_lengths(data),
        **({"class_names": data.class_names} if data.class_names else {}),
        **encoders,
    }


def check_fits(data: MultiTaskData, stored: Mapping[str, Any], *, labels: bool = True) -> None:
    """Raise DataError if arranged `data` is not of the kind that `describe` gave for a stored run.

    Labels without names are taken to be those of the run, in their order. Data without any label
    (T = 0) fits a run with labels: it can be predicted.

    Args:
        data: the samples.
        stored: what `describe` gave.
        labels: whether labels are wanted; otherwise only those with other names are refused.
    """
    found = describe(data)
    check_encoders(data.name, data.encoders, stored.get("encoders"))
    for field, kind in (("features", "the feature sizes"), ("sequences", "the sequences")):
        if found[field] != stored[field]:
            expected = f"{kind} of the training data, {_show(stored[field])}"
            raise DataError.at(data.name, "x", expected, _show(found[field]))
    if not data.num_tasks or found["label_names"] == stored["label_names"]:
        return
    of_classes = list(data.class_names)
    unnamed = [*default_label_names(data.tasks.num_binary), *of_classes]
    if found["label_names"] != unnamed or of_classes != list(stored.get("class_names", {})):
        expected = f"the labels of the training data, {_show(stored['label_names'])}"
        raise DataError.at(data.name, "label_names", expected, _show(found["label_names"]))
    if labels and data.num_tasks != len(stored["label_names"]):
        expected = f"{len(stored['label_names'])} columns as in the training data"
        raise DataError.at(data.name, "y", expected, str(data.num_tasks))


def with_classes_of(data: MultiTaskData, stored: Mapping[str, Any]) -> MultiTaskData:
    """The same samples with the classes numbered as in the training data, by their names.

    Args:
        data: the samples, with the tasks of `stored`.
        stored: what `describe` gave.

    Raises:
        DataError: for a class that the training data does not have.
    """
    y, wanted = data.y.clone(), stored.get("class_names", {})
    for task, own in enumerate(wanted, data.tasks.num_binary):
        y[:, task] = recoded(data.name, own, y[:, task], data.class_names[own], wanted[own])
    return replace(data, y=y, class_names=wanted)


def fingerprint(data: MultiTaskData) -> str:
    """A hash of every value that training reads: a resumed run must see the same data.

    It is the same whether the features are in memory or in a file.
    """
    tensors = {**with_prefix("x", data.features()), "y": data.y, "split": data.split}
    if isinstance(data.lengths, dict):
        tensors |= with_prefix("lengths", data.lengths)
    elif data.lengths is not None:
        tensors["lengths"] = data.lengths
    named: list[Any] = list(data.label_names)
    return digest(tensors, repr([*named, data.class_names] if data.class_names else named))


def _sequences(data: MultiTaskData) -> list[str]:
    return [name for name, value in data.features().items() if value.dim() == 3]


def _have_own_lengths(data: MultiTaskData) -> bool:
    """Whether one sequence of a sample may have other lengths than another."""
    steps = {shape[0] for shape in data.modalities.values() if len(shape) == 2}
    return isinstance(data.lengths, dict) or len(steps) > 1


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {size}" for name, size in value.items())
    names = [str(item) for item in value]
    shown = ", ".join(names[:8]) + (f", ... ({len(names)})" if len(names) > 8 else "")
    return shown or "none"


def split_rows(data: MultiTaskData, split: str) -> Tensor:
    """Indices (n,) of the samples of a split, or of all samples for "all"."""
    return torch.arange(data.num_samples) if split == "all" else data.indices(split)
