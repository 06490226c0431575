from __future__ import annotations

import pytest

from fastmtl.training import RunError, TrainConfig
from fastmtl.training.checkpoint import write_json
from fastmtl.tuning import Choice, Range, Search
from fastmtl.tuning.search import FILE


class Suggesting:
    """Stands for Optuna's trial: takes the first or least value of everything."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def suggest_categorical(self, name, values):
        self.asked.append(name)
        return values[0]

    def suggest_float(self, name, low, high, **how):
        self.asked.append(name)
        return low


def test_options_without_effect_are_not_drawn():
    space = {"alpha": Range(0.5, 2.0), "lr": Range(1e-4, 1e-2)}
    trial = Suggesting()
    search = Search(TrainConfig(), {**space, "balancer": Choice(("equal", "tdb"))}, ("balance_lr",))
    assert search.draw(trial) == TrainConfig(balancer="equal", lr=1e-4)
    assert trial.asked == ["balancer", "lr"]
    trial = Suggesting()
    search = Search(TrainConfig(), {**space, "balancer": Choice(("tdb", "equal"))})
    assert search.draw(trial) == TrainConfig(balancer="tdb", lr=1e-4, alpha=0.5)
    assert trial.asked == ["balancer", "alpha", "lr"]


def test_what_is_idle_in_a_trial_is_as_by_default():
    base = TrainConfig(alpha=0.3)
    search = Search(base, {"balancer": Choice(("equal", "tdb"))}, ("alpha",))
    assert search.with_values({"balancer": "equal"}) == TrainConfig(balancer="equal")
    assert search.with_values({"balancer": "tdb"}).alpha == 0.3


@pytest.mark.parametrize(
    ("base", "space", "given", "named"),
    [
        ({}, {}, (), "search: expected at least one option"),
        ({}, {"theta": Range(0.1, 1.0)}, (), "theta: expected only with model hgfn"),
        ({}, {"lr": Range(0.0, 1.0)}, (), "search: lr: expected a finite number > 0"),
        ({}, {"lr": Range(0.1, 1.0)}, ("theta",), "theta: expected only with model hgfn"),
        (
            {"monitor": "loss"},
            {"gamma": Range(0.0, 1.0)},
            (),
            "monitor: expected map, micro_f1 or",
        ),
        ({}, {"epochs": Choice((1, 2))}, (), "search: expected an option that trials can differ"),
    ],
)
def test_a_search_that_cannot_be_is_named(base, space, given, named):
    with pytest.raises(ValueError, match=named):
        Search(TrainConfig(**base), space, given)


def test_the_first_trial_is_where_the_search_starts():
    search = Search(TrainConfig(lr=0.5), {"lr": Range(0.1, 1.0), "dropout": Choice((0.0, 0.1))})
    assert search.start() == {"lr": 0.5}


def test_a_figure_to_be_low_is_shown_as_it_is():
    assert Search(TrainConfig(monitor="loss"), {"lr": Range(0.1, 1.0)}).shown(-0.25) == 0.25
    assert Search(TrainConfig(), {"lr": Range(0.1, 1.0)}).shown(0.25) == 0.25


@pytest.mark.parametrize(
    ("base", "space", "named"),
    [
        ({"epochs": 7}, {"lr": Range(0.1, 1.0)}, "epochs: expected 50 as in .*, got 7"),
        ({}, {"lr": Range(0.1, 2.0)}, "search: lr: expected .* as in"),
        ({}, {"dropout": Range(0.1, 0.2)}, "search: dropout: expected None as in"),
    ],
)
def test_another_search_needs_another_directory(base, space, named, tmp_path):
    search = Search(TrainConfig(), {"lr": Range(0.1, 1.0)})
    write_json(tmp_path / FILE, search.fixed())
    search.check_directory(tmp_path)
    with pytest.raises(RunError, match=named):
        Search(TrainConfig(**base), space).check_directory(tmp_path)


def test_a_directory_of_something_else_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("")
    search = Search(TrainConfig(), {"lr": Range(0.1, 1.0)})
    with pytest.raises(RunError, match=r"expected a new or empty directory, or one with a tune"):
        search.check_directory(tmp_path)
    with pytest.raises(RunError, match=r"mine.txt: expected a directory, got a file"):
        search.check_directory(tmp_path / "mine.txt")


def test_the_judge_is_named_as_elsewhere():
    space = {"lr": Range(1e-4, 1e-2)}
    named = {"loss": "validation loss", "map": "mAP", "macro_f1": "macro-F1"}
    for monitor, name in named.items():
        assert Search(TrainConfig(monitor=monitor), space).monitor == name
