"""The models and balancers that a run can name, and how they are built from its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fastmtl.balancing import (
    FAMO,
    MGDA,
    Balancer,
    DynamicMultiTask,
    DynamicWeightAverage,
    Equal,
    GeometricMean,
    GradNorm,
    RandomLossWeighting,
    TaskDynamicBalancing,
    UncertaintyWeighting,
)
from fastmtl.data import MultiTaskData
from fastmtl.models import CMLC, HGFN, MTMLAN, FusionBaseline

if TYPE_CHECKING:
    from fastmtl.training.config import TrainConfig

    BuildBalancer = Callable[[TrainConfig, nn.Module, MultiTaskData], Balancer]


def build_model(config: TrainConfig, data: MultiTaskData) -> nn.Module:
    """The model that `config` names, for arranged `data`; its weights are a function of the seed.

    Example:
        >>> import fastmtl
        >>> from fastmtl.training import TrainConfig, arrange
        >>> config = TrainConfig(hidden_size=4, attention_size=3)
        >>> data = fastmtl.data.load("synthetic:disaster?clips=40&frames=3&features=8")
        >>> build_model(config, arrange(data, config.model)).config()["in_features"]
        8
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        return MODELS[config.model](config, data)


def rebuild_model(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The model `name` with the constructor arguments that its `config()` gave."""
    return MODEL_CLASSES[name](**arguments)


def build_balancer(config: TrainConfig, model: nn.Module, data: MultiTaskData) -> Balancer:
    """The balancer that `config` names, for `model` and the training split of `data`."""
    return BALANCERS[config.balancer](config, model, data)


def _mtmlan(config: TrainConfig, data: MultiTaskData) -> nn.Module:
    return MTMLAN(
        data.modalities["x"][-1],
        data.num_tasks,
        config.hidden_size,
        2 if config.num_layers is None else config.num_layers,
        config.attention_size,
        shared_features=config.shared_features,
        dropout=config.dropout,
    )


def _cmlc(config: TrainConfig, data: MultiTaskData) -> nn.Module:
    return CMLC(
        data.modalities["x"][-1],
        data.num_tasks,
        config.hidden_size,
        2 if config.num_layers is None else config.num_layers,
        dropout=config.dropout,
    )


def _hgfn(config: TrainConfig, data: MultiTaskData) -> nn.Module:
    return HGFN(theta=config.theta, max_level=config.max_level, **_fusion_options(config, data))


def _baseline(fusion: str) -> Callable[[TrainConfig, MultiTaskData], nn.Module]:
    def build(config: TrainConfig, data: MultiTaskData) -> nn.Module:
        return FusionBaseline(fusion=fusion, **_fusion_options(config, data))

    return build


def _fusion_options(config: TrainConfig, data: MultiTaskData) -> dict[str, Any]:
    shapes = data.modalities.items()
    return {
        "modalities": {name: shape[-1] for name, shape in shapes},
        "num_tasks": data.num_tasks,
        "hidden_size": config.hidden_size,
        "sequence_modalities": [name for name, shape in shapes if len(shape) == 2],
        "head_size": config.head_size,
        "gru_layers": 1 if config.num_layers is None else config.num_layers,
        "attention_size": config.attention_size,
        "interaction": config.interaction,
        "dropout": config.dropout,
    }


def _loss_only(balancer: Callable[[int], Balancer]) -> BuildBalancer:
    def build(config: TrainConfig, model: nn.Module, data: MultiTaskData) -> Balancer:
        return balancer(data.num_tasks)

    return build


def _famo(config: TrainConfig, model: nn.Module, data: MultiTaskData) -> Balancer:
    return FAMO(data.num_tasks, lr=config.balance_lr)


def _mgda(config: TrainConfig, model: nn.Module, data: MultiTaskData) -> Balancer:
    if config.model in SEQUENCE_MODELS and config.shared_features is None:
        raise ValueError(
            "balancer: mgda needs a layer that the tasks share, got "
            f"{config.model} without shared_features"
        )
    return MGDA(model, normalize=True, balance_at="shared")


def _grad_norm(config: TrainConfig, model: nn.Module, data: MultiTaskData) -> Balancer:
    return GradNorm(model, config.alpha, lr=config.balance_lr, balance_at=config.balance_at)


def _dynamic(balancer: type[TaskDynamicBalancing]) -> BuildBalancer:
    def build(config: TrainConfig, model: nn.Module, data: MultiTaskData) -> Balancer:
        return balancer(
            model,
            positives=data.positives("train"),
            samples=len(data.indices("train")),
            alpha=config.alpha,
            lr=config.balance_lr,
            balance_at=config.balance_at,
            imbalance_penalty=config.imbalance_penalty,
        )

    return build


SEQUENCE_MODELS = ("mtmlan", "cmlc")
FUSION_MODELS = ("hgfn", "cfc", "matf", "gfn")
MODEL_CLASSES: dict[str, Callable[..., nn.Module]] = {
    "mtmlan": MTMLAN,
    "cmlc": CMLC,
    "hgfn": HGFN,
    "fusion_baseline": FusionBaseline,
}
MODELS: dict[str, Callable[[TrainConfig, MultiTaskData], nn.Module]] = {
    "mtmlan": _mtmlan,
    "cmlc": _cmlc,
    "hgfn": _hgfn,
    "cfc": _baseline("cfc"),
    "matf": _baseline("matf"),
    "gfn": _baseline("gfn"),
}
BALANCERS: dict[str, BuildBalancer] = {
    "equal": _loss_only(Equal),
    "uncertainty": _loss_only(UncertaintyWeighting),
    "dwa": _loss_only(DynamicWeightAverage),
    "rlw": _loss_only(RandomLossWeighting),
    "geometric": _loss_only(GeometricMean),
    "famo": _famo,
    "gradnorm": _grad_norm,
    "tdb": _dynamic(TaskDynamicBalancing),
    "dmtl": _dynamic(DynamicMultiTask),
    "mgda": _mgda,
}
