from __future__ import annotations

import pytest

from fastmtl.training import TrainConfig
from fastmtl.training.recipes import MODELS
from fastmtl.tuning import Choice, Range, Search, default_space, parse_space


def test_what_is_typed_is_what_is_tried():
    space = parse_space(
        ["lr=1e-4:1e-2:log", "hidden-size=64:256:64", "dropout=0:0.5", "residual=true,false",
         "shared_features=none,32", "balancer=equal, dmtl"]
    )  # fmt: skip
    assert space == {
        "lr": Range(1e-4, 1e-2, log=True),
        "hidden_size": Range(64, 256, step=64),
        "dropout": Range(0.0, 0.5),
        "residual": Choice((True, False)),
        "shared_features": Choice((None, 32)),
        "balancer": Choice(("equal", "dmtl")),
    }


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("lr", "search: expected NAME=LOW:HIGH or NAME=A,B,..., got 'lr'"),
        ("lr=", "search: expected NAME=LOW:HIGH"),
        ("rl=1:2", r"search: expected options of fastmtl train, got 'rl'"),
        ("drop_out=0:1", "did you mean 'dropout'"),
        ("seed=1,2", "search: expected an option that trials can differ in, got seed"),
        ("lr=0.1:0.01", "search: lr: expected LOW < HIGH, got '0.1:0.01'"),
        ("lr=0:1:log", "search: lr: expected LOW > 0 for a logarithmic range"),
        ("lr=0:1", "search: lr: expected a finite number > 0, got 0.0"),
        ("lr=1:2:3:4", "search: lr: expected LOW:HIGH, LOW:HIGH:log or LOW:HIGH:STEP"),
        ("lr=a:b", "search: lr: expected a number, got 'a'"),
        ("hidden_size=1.5:2", "search: hidden_size: expected an integer, got '1.5'"),
        ("hidden_size=8:16:9", "search: hidden_size: expected 0 < STEP <= HIGH - LOW"),
        ("hidden_size=8", "search: hidden_size: expected at least two different values, got '8'"),
        ("hidden_size=8,8", "search: hidden_size: expected at least two different values"),
        ("hidden_size=none,8", "search: hidden_size: expected an integer, got 'none'"),
        ("balancer=equal,dmlt", "search: balancer: expected one of .*did you mean 'dmtl'"),
        ("balancer=a:b", "search: balancer: expected values with commas between them"),
        ("residual=yes,no", "search: residual: expected True or False, got 'yes'"),
        ("dropout=0:1", r"search: dropout: expected a finite number in \[0, 1\), got 1.0"),
    ],
)
def test_what_cannot_be_tried_is_named(text, named):
    with pytest.raises(ValueError, match=named):
        parse_space([text])


def test_an_option_is_searched_once():
    with pytest.raises(ValueError, match="search: expected each option once, got lr twice"):
        parse_space(["lr=1e-4:1e-2", "lr=1,2"])


@pytest.mark.parametrize("model", MODELS)
def test_what_is_searched_by_default_has_an_effect(model):
    space = default_space(model)
    assert 4 <= len(space) <= 6
    base = TrainConfig(model=model)
    search = Search(base, space)
    assert set(search.start()) == set(space)


def test_numbers_on_a_step_are_held():
    assert Range(0.0, 0.6, step=0.2).holds(0.6)
    assert not Range(0.0, 0.6, step=0.2).holds(0.5)
    assert not Range(0, 2).holds(True)
    assert not Range(0, 2).holds(None)
