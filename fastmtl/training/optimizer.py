"""The optimizer of a run, and its learning rate at every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fastmtl.training.config import TrainConfig

# How the names of parameters begin that scale or shift, and are not pulled towards 0.
_UNDECAYED = ("bias", "gain")


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


def learning_rate(config: TrainConfig, epoch: int, step: int, steps: int) -> float:
    """That of step `step` (from 0) of the `steps` of an epoch (from 1).

        lr min(1, s / warmup) lr_decay^(epoch - 1),   s the steps so far, this one included

    It depends on nothing else, so that a run that is resumed, or given more epochs, goes on as one
    that was never interrupted.
    """
    taken = (epoch - 1) * steps + step + 1
    rising = min(1.0, taken / config.warmup) if config.warmup else 1.0
    return config.lr * rising * config.lr_decay ** (epoch - 1)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Let the next step use `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr
