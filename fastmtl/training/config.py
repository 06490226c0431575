"""Everything that defines a training run, checked on construction and stored as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from fastmtl.training.factory import BALANCERS, FUSION_MODELS, MODELS
from fastmtl.training.history import MONITORS

BALANCE_AT = ("shared", "first", "last")
# The options that mean nothing to some models or balancers, and those they mean something to.
ONLY_FOR = {
    "shared_features": ("model", ("mtmlan",)),
    "theta": ("model", ("hgfn",)),
    "max_level": ("model", ("hgfn",)),
    "head_size": ("model", FUSION_MODELS),
    "interaction": ("model", FUSION_MODELS),
    "attention_size": ("model", ("mtmlan", *FUSION_MODELS)),
    "alpha": ("balancer", ("gradnorm", "tdb", "dmtl")),
    "balance_lr": ("balancer", ("gradnorm", "tdb", "dmtl", "famo")),
    "balance_at": ("balancer", ("gradnorm", "tdb", "dmtl")),
    "imbalance_penalty": ("balancer", ("tdb", "dmtl")),
}


@dataclass(frozen=True)
class TrainConfig:
    """The options of a training run. Construction raises ValueError for a value out of range.

    Data: `data`, `test`, `xml` and `modalities` are what `fastmtl.data.load` takes: a file or
    `synthetic:...`, the file of the test split where that is apart, the labels of an .arff file,
    and modalities to keep ("text,audio") or to cut columns into ("text=0:79,audio=79:103").
    `standardize` scales every feature to mean 0 and variance 1 over the training split.

    Optimisation: Adam with learning rate `lr` on the focal loss with focusing parameter `gamma`,
    `batch_size` samples a step, at most `epochs` epochs, stopping after `patience` epochs without a
    better one by `monitor` on the validation split: "loss" (the lowest mean of the unweighted task
    losses), "map" or "micro_f1" (the highest). `clip_grad_norm` bounds the global gradient norm
    (None: no bound).

    Balancing: `balancer` is a name in `fastmtl.training.factory.BALANCERS`. For "gradnorm", "tdb"
    and "dmtl", `alpha` is the exponent of the relative loss, `balance_lr` the step size of the task
    weights (for "famo" too), and `balance_at` where the gradient norms are taken ("shared", "first"
    or "last" layer; None: shared where the model has one, else first). For "tdb" and "dmtl",
    `imbalance_penalty` weighs the tasks by N / n_j.

    Models: `hidden_size`, `dropout`, and of the networks that read sequences `attention_size` and
    `num_layers` (None: 2 for MTMLAN, 1 for HGFN). MTMLAN: `shared_features`, the width of a
    trainable layer shared by all tasks (None: no such layer). HGFN: `theta` and `max_level`. HGFN
    and its baselines: `head_size`, and `interaction`, MTI-Net's exchange of features between tasks.

    `seed` fixes the split, the initial weights, the shuffling and dropout. `device` is "auto" (a
    GPU if there is one), "cpu", "cuda", "cuda:1", ...; `threads` is the number of CPU threads
    (None: torch's own choice).

    Example:
        >>> config = TrainConfig(model="mtmlan", balancer="tdb", epochs=5)
        >>> TrainConfig.from_dict(config.to_dict()) == config
        True
        >>> TrainConfig(lr=0)
        Traceback (most recent call last):
            ...
        ValueError: lr: expected a finite number > 0, got 0
    """

    model: str = "mtmlan"
    balancer: str = "dmtl"
    data: str = "synthetic:disaster"
    test: str | None = None
    xml: str | None = None
    modalities: str | None = None
    standardize: bool = True
    epochs: int = 50
    batch_size: int = 20
    lr: float = 1e-3
    gamma: float = 2.0
    patience: int = 10
    monitor: str = "loss"
    clip_grad_norm: float | None = None
    alpha: float = 1.0
    balance_lr: float = 0.025
    balance_at: str | None = None
    imbalance_penalty: bool = True
    hidden_size: int = 128
    attention_size: int = 64
    num_layers: int | None = None
    shared_features: int | None = None
    dropout: float = 0.0
    theta: float = 0.5
    max_level: int = 3
    head_size: int = 64
    interaction: bool = False
    seed: int = 0
    device: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        _one_of("model", self.model, tuple(MODELS))
        _one_of("balancer", self.balancer, tuple(BALANCERS))
        _one_of("monitor", self.monitor, MONITORS)
        for name in ("epochs", "batch_size", "patience", "hidden_size", "attention_size",
                     "max_level", "head_size"):  # fmt: skip
            _integer(name, getattr(self, name), minimum=1)
        _integer("seed", self.seed, minimum=0)
        for name in ("num_layers", "shared_features", "threads"):
            if getattr(self, name) is not None:
                _integer(name, getattr(self, name), minimum=1)
        for name in ("standardize", "imbalance_penalty", "interaction"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}: expected True or False, got {getattr(self, name)!r}")
        for name in ("lr", "balance_lr", "theta"):
            _number(name, getattr(self, name), "> 0", lambda value: value > 0)
        for name in ("gamma", "alpha"):
            _number(name, getattr(self, name), ">= 0", lambda value: value >= 0)
        _number("dropout", self.dropout, "in [0, 1)", lambda value: 0 <= value < 1)
        if self.clip_grad_norm is not None:
            _number("clip_grad_norm", self.clip_grad_norm, "> 0", lambda value: value > 0)
        if self.balance_at is not None:
            _one_of("balance_at", self.balance_at, BALANCE_AT)

    def to_dict(self) -> dict[str, Any]:
        """The options as a dictionary that json can write."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> TrainConfig:
        """The configuration that `to_dict` gave; ValueError for an option that does not exist."""
        unknown = sorted(set(options) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise ValueError(f"options: expected fields of TrainConfig, got {', '.join(unknown)}")
        return cls(**options)


def check_effect(config: TrainConfig, given: Iterable[str]) -> None:
    """Raise ValueError if an option that a user gave has no effect on the model or balancer."""
    for name in given:
        kind, users = ONLY_FOR.get(name, ("model", (config.model,)))
        chosen = getattr(config, kind)
        if chosen not in users:
            raise ValueError(
                f"{name}: expected only with {kind} {' or '.join(users)}, got it with {chosen}"
            )


def resolve_device(name: str) -> torch.device:
    """The torch device that `name` stands for; ValueError if this machine has no such device.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device: expected auto, cpu, cuda or cuda:N, got {name!r}") from None
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise ValueError(f"device: {name!r} is not available, this machine has {count} GPUs")
    elif device.type != "cpu":
        raise ValueError(f"device: expected auto, cpu, cuda or cuda:N, got {name!r}")
    return device


def _one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")


def _integer(name: str, value: object, *, minimum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"{name}: expected an integer >= {minimum}, got {value!r}")


def _number(name: str, value: object, expected: str, accept: Any) -> None:
    valid = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not valid or not math.isfinite(value) or not accept(value):  # type: ignore[arg-type]
        raise ValueError(f"{name}: expected a finite number {expected}, got {value!r}")
