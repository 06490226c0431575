"""Which options of a run mean something to its model, balancer, loss and schedule."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from fastmtl.training.config import TrainConfig
from fastmtl.training.recipes import ONLY_FOR


def why_idle(config: TrainConfig, name: str) -> str | None:
    """Why an option has no effect in a configuration; None where it has one.

    Examples:
        >>> why_idle(TrainConfig(model="mtmlan"), "theta")
        'theta: expected only with model hgfn, got it with mtmlan'
    """
    kind, users = ONLY_FOR.get(name, ("model", [config.model]))
    if name == "lr_decay":
        kind, users = "lr_schedule", ["decay"]
    if (chosen := getattr(config, kind)) in users:
        return None
    return f"{name}: expected only with {kind} {' or '.join(users)}, got it with {chosen}"


def check_effect(config: TrainConfig, given: Iterable[str]) -> None:
    """Raise if an option that a user gave has no effect.

    Args:
        config: the options of the run.
        given: the names of those that the user set.

    Raises:
        ValueError: naming the first such option.
    """
    for name in given:
        if reason := why_idle(config, name):
            raise ValueError(reason)


def without_idle(config: TrainConfig) -> TrainConfig:
    """The same, where options without effect are as they are by default."""
    default = TrainConfig()
    idle = [name for name in (*ONLY_FOR, "lr_decay") if why_idle(config, name)]
    return dataclasses.replace(config, **{name: getattr(default, name) for name in idle})
