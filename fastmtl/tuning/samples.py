"""The samples of a search, and whether they fit all that may be drawn."""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import torch

import fastmtl.data
from fastmtl.data import MultiTaskData
from fastmtl.data.splits import SPLITS
from fastmtl.data.tasks import is_positive
from fastmtl.training import TrainConfig, arrange, build_balancer, build_model
from fastmtl.training.effect import without_idle
from fastmtl.training.losses import check_figures
from fastmtl.tuning.search import Search


def load_samples(search: Search) -> MultiTaskData:
    """The samples that trials train and validate on, once they fit all that may be drawn.

    Args:
        search: what is tried.

    Raises:
        DataError: for data that cannot be used.
        ValueError: where the monitor has no value on the validation split, and for a model or a
            balancer that does not fit the data.
    """
    data = samples_of(search.base)
    _check_kinds(search, data)
    _check_judge(search, data)
    return data


def samples_of(base: TrainConfig) -> MultiTaskData:
    """The samples to train and validate on; those to test on belong to no split."""
    data = fastmtl.data.load(
        base.data,
        test=base.test,
        xml=base.xml,
        modalities=base.modalities,
        seed=base.seed,
        memory=base.memory,
    )
    split = torch.where(data.split == SPLITS.index("test"), -1, data.split)
    return dataclasses.replace(data, split=split)


cached_samples = lru_cache(maxsize=1)(samples_of)


def _check_judge(search: Search, data: MultiTaskData) -> None:
    """Raise ValueError where the monitor has no value on the validation split."""
    monitor = search.base.monitor
    y, first = data.y[data.indices("val")], data.tasks.num_binary
    positive = bool(is_positive(y[:, :first]).any())
    of_classes = bool(y[:, first:].isfinite().any())
    has = {"map": positive or of_classes, "micro_f1": positive, "macro_f1": of_classes}
    if not has.get(monitor, True):
        missing = "no label is positive" if monitor != "macro_f1" else "no sample has a class"
        raise ValueError(
            f"monitor: expected loss, because {missing} in the validation split, got {monitor}"
        )


def _check_kinds(search: Search, data: MultiTaskData) -> None:
    """Raise ValueError where a model or a balancer that may be drawn does not fit the data."""
    last = {name: values.ends()[-1] for name, values in search.space.items()}
    for kind in search.kinds():
        drawn = {**last, "model": kind.model, "balancer": kind.balancer, "loss": kind.loss}
        config = without_idle(dataclasses.replace(search.base, **drawn))
        arranged = arrange(data, config.model)
        check_figures(config, arranged.tasks)
        build_balancer(config, build_model(config, arranged), arranged)
