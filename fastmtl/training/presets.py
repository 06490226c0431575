"""Named sets of options to start a training run from."""

from __future__ import annotations

from typing import Any

from fastmtl._checks import need_choice

PRESETS: dict[str, dict[str, Any]] = {
    # The defaults of `TrainConfig`.
    "default": {},
    # What the papers name, and else what this package took before its defaults were chosen on data:
    # a constant learning rate, no regularisation, stopping by the loss, the equations as printed.
    "paper": {
        "batch_size": 20,
        "lr": 1e-3,
        "warmup": 0,
        "lr_decay": 1.0,
        "weight_decay": 0.0,
        "prior_bias": False,
        "monitor": "loss",
        "threshold": "half",
        "dropout": 0.0,
        "factor_bound": None,
        "similarity_norm": False,
        "level_norm": False,
        "residual": False,
    },
}


def preset(name: str) -> dict[str, Any]:
    """The options of a preset, as keywords of `TrainConfig`.

    Args:
        name: "default" or "paper".

    Raises:
        ValueError: for another name.

    Examples:
        >>> from fastmtl.training import TrainConfig, preset
        >>> config = TrainConfig(**{**preset("paper"), "model": "hgfn"})
        >>> config.monitor, config.residual
        ('loss', False)
    """
    need_choice("preset", name, tuple(PRESETS))
    return dict(PRESETS[name])
