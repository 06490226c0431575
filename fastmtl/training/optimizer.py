"""The optimizer of a run, and its learning rate at every step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from fastmtl.training.config import TrainConfig

# How the names of parameters begin that scale or shift, and are not pulled towards 0.
_UNDECAYED = ("bias", "gain")
# Epochs without a better one after which the schedule "plateau" halves the learning rate.
PLATEAU_EPOCHS = 3


def make_optimizer(
    model: nn.Module, balancer: nn.Module, config: TrainConfig, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW over the parameters of the model and those that a balancer may learn.

    Weights decay, theta <- theta - lr `weight_decay` theta besides Adam's step (Loshchilov and
    Hutter 2019, algorithm 2); biases, gains and the balancer's parameters do not. With
    `weight_decay` 0 it is Adam.
    """
    # Each once, since a balancer may hold the model as a submodule.
    decays: dict[nn.Parameter, bool] = {}
    for name, parameter in model.named_parameters():
        decays[parameter] = not name.rpartition(".")[2].startswith(_UNDECAYED)
    for parameter in balancer.parameters():
        decays.setdefault(parameter, False)
    groups: list[dict[str, Any]] = [
        {"params": [each for each in decays if decays[each]], "weight_decay": config.weight_decay},
        {"params": [each for each in decays if not decays[each]], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        fused=device.type in ("cpu", "cuda"),
    )


def learning_rate(
    config: TrainConfig, epoch: int, step: int, steps: int, plateaus: int = 0
) -> float:
    """That of step `step` (from 0) of the `steps` of an epoch (from 1).

        lr min(1, s / warmup) f,   s the steps so far, this one included

        decay      f = lr_decay^(epoch - 1)
        constant   f = 1
        cosine     f = (1 + cos(pi (s - 1) / (epochs steps))) / 2  (Loshchilov and Hutter 2017)
        plateau    f = 2^-plateaus

    It depends on nothing else, so that a run that is resumed goes on as one that was never
    interrupted; but for cosine, one that is given more epochs too.
    """
    taken = (epoch - 1) * steps + step + 1
    rising = min(1.0, taken / config.warmup) if config.warmup else 1.0
    if config.lr_schedule == "cosine":
        falling = (1 + math.cos(math.pi * (taken - 1) / (config.epochs * steps))) / 2
    elif config.lr_schedule == "plateau":
        falling = 0.5**plateaus
    else:
        decay = config.lr_decay if config.lr_schedule == "decay" else 1.0
        falling = decay ** (epoch - 1)
    return config.lr * rising * falling


def count_plateaus(scores: Iterable[float]) -> int:
    """How often `PLATEAU_EPOCHS` passed without a better one, by the score of every epoch so far.

    Examples:
        >>> count_plateaus([0.1, 0.5, 0.4, 0.5, 0.3, 0.6, 0.6])
        1
    """
    best, waited, plateaus = -math.inf, 0, 0
    for score in scores:
        waited = 0 if score > best else waited + 1
        best = max(best, score)
        if waited == PLATEAU_EPOCHS:
            plateaus, waited = plateaus + 1, 0
    return plateaus


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Let the next step use `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr
