from __future__ import annotations

import dataclasses
import json
import math
import re

import pytest
import torch

from fastmtl.training import TrainConfig
from fastmtl.training.config import option_help
from fastmtl.training.device import resolve_device
from fastmtl.training.effect import check_effect
from fastmtl.training.options import declared
from fastmtl.training.recipes import BALANCERS, LOSSES, MODELS, ONLY_FOR


@pytest.mark.parametrize(
    "options",
    [
        {"model": "vgg"},
        {"balancer": "none"},
        {"balance_at": "middle"},
        {"epochs": 0},
        {"epochs": -1},
        {"epochs": 2.0},
        {"epochs": True},
        {"batch_size": 0},
        {"patience": 0},
        {"lr": 0},
        {"lr": -1e-3},
        {"lr": math.nan},
        {"lr": math.inf},
        {"lr": "fast"},
        {"gamma": -0.5},
        {"alpha": -1},
        {"balance_lr": 0},
        {"dropout": 1.0},
        {"theta": 0},
        {"clip_grad_norm": 0},
        {"seed": -1},
        {"threads": 0},
        {"num_layers": 0},
        {"shared_features": 0},
        {"head_size": 0},
        {"similarity_norm": 1},
        {"level_norm": "yes"},
        {"residual": 0},
        {"warmup": -1},
        {"warmup": 2.5},
        {"lr_decay": 0},
        {"lr_decay": 1.1},
        {"lr_schedule": "steps"},
        {"accumulate": 0},
        {"ema": 1.0},
        {"log": "wandb"},
        {"weight_decay": -0.1},
        {"prior_bias": 1},
        {"threshold": "best"},
        {"cycle_reset": None},
        {"factor_bound": 1},
    ],
)
def test_a_bad_option_is_named(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"^{name}: expected .* got "):
        TrainConfig(**options)


def test_goes_through_json():
    config = TrainConfig(model="hgfn", lr=3e-4, clip_grad_norm=1.0, modalities="a=0:3,b=3:5")
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_an_unknown_stored_option_is_named():
    with pytest.raises(ValueError, match="momentum"):
        TrainConfig.from_dict({"momentum": 0.9})


def test_device_names():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("cuda:99", "tpu", "meta", ""):
        with pytest.raises(ValueError, match=r"^device: "):
            resolve_device(name)


@pytest.mark.parametrize("name", ONLY_FOR)
def test_an_option_without_effect_is_refused(name):
    kind, users = ONLY_FOR[name]
    others = {"model": MODELS, "balancer": BALANCERS, "loss": LOSSES}[kind]
    for chosen in others:
        config = TrainConfig(**{kind: chosen})
        if chosen in users:
            check_effect(config, [name, "epochs"])
        else:
            with pytest.raises(ValueError, match=f"^{name}: expected only with {kind}"):
                check_effect(config, [name])


def test_a_factor_that_the_schedule_does_not_take_is_refused():
    check_effect(TrainConfig(lr_decay=0.9), ["lr_decay"])
    with pytest.raises(ValueError, match="lr_decay: expected only with lr_schedule decay, got it"):
        check_effect(TrainConfig(lr_schedule="cosine", lr_decay=0.9), ["lr_decay"])


def test_every_option_is_checked_described_and_typed():
    options = declared(TrainConfig)
    assert list(options) == [field.name for field in dataclasses.fields(TrainConfig)]
    for each in options.values():
        assert each.option.help
        assert each.option.panel
        assert f"    {each.name}: {option_help(each.name)[:20]}" in TrainConfig.__doc__
        each.check(each.default)
    assert set(ONLY_FOR) <= set(options)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("balancer", "best", "one of equal, uncertainty, "),
        ("standardize", 1, "True or False"),
        ("threads", 0, "an integer >= 1"),
        ("seed", -1, "an integer >= 0"),
        ("gamma", -1, "a finite number >= 0"),
        ("lr_decay", 2, "a finite number > 0 and <= 1"),
        ("theta", 0, "a finite number > 0"),
        ("dropout", 1, r"a finite number in \[0, 1\)"),
    ],
)
def test_what_was_expected_is_told(name, value, expected):
    with pytest.raises(ValueError, match=f"^{name}: expected {expected}.* got {value!r}$"):
        TrainConfig(**{name: value})


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("data", 5, "text"),
        ("device", None, "text"),
        ("seed", 2**63, "an integer >= 0 and <= 9223372036854775807"),
        ("threads", 100_000, "an integer >= 1 and <= 1024"),
    ],
)
def test_what_would_fail_later_is_refused(option, value, expected):
    with pytest.raises(ValueError, match=re.escape(f"{option}: expected {expected}, got")):
        TrainConfig(**{option: value})
