from __future__ import annotations

import pytest

from fastmtl.reproduce import Plan
from fastmtl.reproduce.plan import parse_options
from fastmtl.reproduce.systems import TABLES
from fastmtl.training import RunError
from fastmtl.training.checkpoint import write_json

DATA = "synthetic:disaster?clips=60&frames=3&features=6"


@pytest.mark.parametrize("table", TABLES)
def test_every_system_of_a_table_makes_runs(table):
    names = [system.name for system in TABLES[table].systems]
    assert len(set(names)) == len(names)
    assert set(TABLES[table].default) <= set(names)
    plan = Plan(table, DATA, seeds=2, folds=3, systems=names)
    count = 3 if table == "mtdnn" else 2
    runs = plan.runs()
    assert len({run.name for run in runs}) == len(runs) == count * len(names)
    assert [run.system for run in runs[: len(names)]] == names


def test_systems_differ_in_what_defines_them_alone():
    plan = Plan("hgfn", DATA, options={"epochs": 3, "theta": 1.0, "alpha": 0.5})
    config = {s.name: plan.config(s, 7) for s in TABLES["hgfn"].systems}
    assert all((c.epochs, c.seed, c.data) == (3, 7, DATA) for c in config.values())
    assert (config["hgfn-dmtl"].theta, config["hgfn-dmtl"].alpha) == (1.0, 0.5)
    assert (config["cfc-lsew"].theta, config["cfc-lsew"].alpha) == (0.5, 1.0)
    assert config["matf-mti-net"].interaction
    assert {(c.monitor, c.batch_size, c.residual) for c in config.values()} == {("loss", 20, False)}
    assert config["gfn-moo"].balancer == "mgda"


def test_estimators_take_the_options_they_have():
    plan = Plan("mtdnn", DATA, options={"k": 3, "epochs": 4}, device="cpu")
    made = {s.name: plan.estimator(s, 5).get_params() for s in plan.chosen}
    assert made["mlknn"]["k"] == 3
    assert made["bpmll"]["epochs"] == made["mtdnn"]["epochs"] == 4
    assert made["mtdnn"]["random_state"] == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"table": "resnet"}, "table: expected one of mtmlan, hgfn, mtdnn, got 'resnet'"),
        ({"seeds": 0}, "seeds: expected an integer >= 1, got 0"),
        ({"systems": ["cmlc", "vgg"]}, "systems: expected some of cmlc, .*, got 'vgg'"),
        ({"options": {"momentum": 1}}, "option: expected some of "),
        ({"options": {"gamma": 1.0}}, "option: expected some of "),
        ({"options": {"lr": -1}}, "lr: expected a finite number > 0"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Plan(**{"table": "mtmlan", "data": DATA, **arguments})


def test_a_directory_of_another_reproduction_is_refused(tmp_path):
    plan = Plan("mtmlan", DATA)
    plan.check_directory(tmp_path / "new")
    plan.check_directory(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="expected a new or empty directory"):
        plan.check_directory(tmp_path)
    with pytest.raises(RunError, match="expected a directory, got a file"):
        plan.check_directory(tmp_path / "file")
    write_json(tmp_path / "reproduce.json", plan.fixed())
    Plan("mtmlan", DATA, seeds=9, systems=["cmlc"]).check_directory(tmp_path)
    with pytest.raises(RunError, match=r"^options: expected \{\} as in .*, got \{'epochs': 2\}"):
        Plan("mtmlan", DATA, options={"epochs": 2}).check_directory(tmp_path)


def test_options_are_json_or_strings():
    assert parse_options(["lr=1e-3", "monitor=map", "balance-at=last"]) == {
        "lr": 1e-3,
        "monitor": "map",
        "balance_at": "last",
    }
    with pytest.raises(ValueError, match=r"^option: expected NAME=VALUE, got 'lr'"):
        parse_options(["lr"])
