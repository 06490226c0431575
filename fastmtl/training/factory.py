"""The model and the balancer of a run, from its configuration and data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fastmtl.balancing import Balancer
from fastmtl.data import MultiTaskData
from fastmtl.training.config import TrainConfig
from fastmtl.training.recipes import BALANCERS, MODEL_CLASSES, MODELS


def build_model(config: TrainConfig, data: MultiTaskData) -> nn.Module:
    """The model that `config` names; its weights are a function of the seed.

    Args:
        config: the options of the run.
        data: the samples, in the model's layout (`arrange`).

    Raises:
        ValueError: for sizes that do not fit each other.

    Examples:
        >>> import fastmtl
        >>> from fastmtl.training import TrainConfig, arrange
        >>> config = TrainConfig(hidden_size=4, attention_size=3)
        >>> data = fastmtl.data.load("synthetic:disaster?clips=40&frames=3&features=8")
        >>> build_model(config, arrange(data, config.model)).config()["in_features"]
        8
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        model: Any = MODELS[config.model].build(config, data)
    if config.prior_bias:
        model.start_at(data.tasks.frequencies(data.y[data.indices("train")]))
    built: nn.Module = model
    return built


def rebuild_model(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The model `name` with the constructor arguments that its `config()` gave."""
    return MODEL_CLASSES[name](**arguments)


def build_balancer(config: TrainConfig, model: nn.Module, data: MultiTaskData) -> Balancer:
    """The balancer that `config` names.

    Args:
        config: the options of the run.
        model: what `build_model` gave.
        data: the samples; their training split is what task-level balancing counts.

    Raises:
        ValueError: for a balancer that cannot work with the model.

    Examples:
        >>> import fastmtl
        >>> from fastmtl.training import TrainConfig, arrange
        >>> config = TrainConfig(hidden_size=4, attention_size=3, balancer="tdb")
        >>> data = fastmtl.data.load("synthetic:disaster?clips=40&frames=3&features=8")
        >>> data = arrange(data, config.model)
        >>> build_balancer(config, build_model(config, data), data).weights.shape
        torch.Size([7])
    """
    return BALANCERS[config.balancer].build(config, model, data)
