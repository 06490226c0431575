"""Runs on multi-class tasks, beside binary ones and alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastmtl.data import DataError, MultiTaskData, load
from fastmtl.data.tasks import Tasks
from fastmtl.training import Predictor, RunError, TrainConfig, Trainer, arrange, load_data
from fastmtl.training.checkpoint import load_tensors, read_json
from fastmtl.training.predictions import predictions_csv, predictions_json
from fastmtl.training.recipes import BALANCERS, MODELS
from tests.training.conftest import CLASSES

Make = Callable[..., TrainConfig]


def mixed(samples: int = 60, **options: Any) -> MultiTaskData:
    """Sequences with two binary and two multi-class tasks, with missing labels."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((samples, 4, 6), dtype=np.float32)
    y = (rng.random((samples, 2)) < 0.4).astype(float)
    y[::7, 1] = np.nan
    damage = np.array(["", "none", "mild", "severe"])[rng.integers(0, 4, samples)]
    kind = rng.integers(-1, 2, samples)
    lengths = rng.integers(1, 5, samples)
    classes = {"damage": damage, "kind": kind}
    return MultiTaskData.from_arrays(
        x, y, lengths=lengths, classes=classes, label_names=["sea", "sun"], **options
    )


@pytest.fixture
def config(make_config: Make) -> Make:
    def make(model: str = "hgfn", **options: Any) -> TrainConfig:
        return make_config(model, **{"data": CLASSES, "epochs": 2, **options})

    return make


@pytest.mark.parametrize("model", MODELS)
def test_every_model_trains(model: str, config: Make, tmp_path: Path) -> None:
    run = Trainer.from_config(config(model, balancer="equal"), tmp_path / "run", mixed())
    metrics = run.fit()
    assert list(metrics["test"]["classes"]) == ["damage", "kind"]
    assert list(metrics["test"]["accuracy"]) == ["sea", "sun"]
    assert 0 <= metrics["val"]["macro_f1"] <= 1
    probabilities = run.predict("test")
    assert probabilities.shape == (12, 2 + 3 + 2)
    torch.testing.assert_close(probabilities[:, 2:5].sum(1), torch.ones(12).double())
    again = Predictor.load(tmp_path / "run", "cpu")
    data = arrange(mixed(), model)
    assert again.evaluate(data, "test") == metrics["test"]


@pytest.mark.parametrize("balancer", BALANCERS)
def test_every_balancer_weighs_them(balancer: str, config: Make, tmp_path: Path) -> None:
    run = Trainer.from_config(config(balancer=balancer, epochs=1), tmp_path / "run")
    run.fit()
    weights = run.balancer.weights
    assert weights.shape == (3,)
    assert weights.isfinite().all()


@pytest.mark.parametrize("model", ["hgfn", "mtmlan"])
def test_a_run_goes_on_to_the_bit(model: str, config: Make, tmp_path: Path) -> None:
    def state(path: Path) -> dict[str, torch.Tensor]:
        return load_tensors(path / "checkpoint.safetensors")[0]

    def run(path: str, epochs: int) -> Trainer:
        options = config(model, balancer="dmtl", epochs=epochs, monitor="macro_f1")
        return Trainer.from_config(options, tmp_path / path, mixed())

    whole = run("whole", 4).fit()
    run("parts", 2).fit()
    parts = run("parts", 4).fit(resume=True)
    for metrics in (whole, parts):
        metrics["training"].pop("seconds_per_epoch")
    assert parts == whole
    expected = state(tmp_path / "whole")
    assert all(value.equal(expected[name]) for name, value in state(tmp_path / "parts").items())


def test_the_monitor_is_macro_f1(config: Make, tmp_path: Path) -> None:
    options = config(monitor="macro_f1", balancer="equal", epochs=4, lr=0.02)
    run = Trainer.from_config(options, tmp_path)
    run.fit()
    scores = [record.macro_f1 for record in run.progress.history]
    assert all(score is not None for score in scores)
    assert scores.index(max(scores)) == run.progress.best_epoch - 1
    header = (tmp_path / "history.csv").read_text().splitlines()[0]
    assert "val_map,val_macro_f1,train_loss/informative" in header


def test_what_a_run_stores(config: Make, tmp_path: Path) -> None:
    data = load(CLASSES)
    Trainer.from_config(config(balancer="equal", epochs=1), tmp_path).fit()
    stored = read_json(tmp_path / "config.json")
    assert stored["data"]["class_names"] == data.class_names
    assert stored["model"]["arguments"]["group_sizes"] == [2, 5, 3]
    figures = read_json(tmp_path / "metrics.json")["test"]["classes"]["damage"]
    assert set(figures["by_class"]["f1"]) == set(data.class_names["damage"])


def test_binary_runs_say_nothing_of_classes(make_config: Make, tmp_path: Path) -> None:
    Trainer.from_config(make_config(balancer="equal", epochs=1), tmp_path).fit()
    stored = read_json(tmp_path / "config.json")
    assert "class_names" not in stored["data"]
    assert "group_sizes" not in stored["model"]["arguments"]
    assert "macro_f1" not in load_tensors(tmp_path / "checkpoint.safetensors")[1]["history"][0]
    assert not {"macro_f1", "classes"} & set(read_json(tmp_path / "metrics.json")["val"])


def trained(path: Path, make: Make) -> Predictor:
    Trainer.from_config(make("mtmlan", balancer="equal", epochs=1), path, mixed()).fit()
    return Predictor.load(path, "cpu")


def test_classes_are_those_of_the_training_data_by_name(config: Make, tmp_path: Path) -> None:
    predictor, data = trained(tmp_path / "run", config), mixed()
    few = (data.y[:, 2] > 0) & ~data.y.isnan().any(1)
    rows = few.nonzero().flatten()
    names = [data.class_names["damage"][int(code)] for code in data.y[rows, 2]]
    assert set(names) == {"none", "severe"}
    assert isinstance(data.x, torch.Tensor)
    part = MultiTaskData.from_arrays(
        data.x[rows],
        data.y[rows, :2],
        lengths=data.lengths[rows],
        classes={"damage": names, "kind": data.y[rows, 3]},
        for_training=False,
    )
    assert part.class_names["damage"] == ["none", "severe"]
    assert predictor.evaluate(part) == predictor.evaluate(data.subset(rows))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"damage": ["nonne"] * 60, "kind": [0] * 60}, r"y_damage: .*mean 'none'\?"),
        ({"damage": [0, 3] * 30, "kind": [0] * 60}, "y_damage: .*mild, none, severe, got '3'"),
        ({"damage": ["none"] * 60}, "label_names: expected the labels of the training data"),
        ({}, "label_names: expected the labels|y: expected 4 columns"),
    ],
)
def test_other_classes_are_refused(
    classes: dict[str, Any], message: str, config: Make, tmp_path: Path
) -> None:
    predictor, data = trained(tmp_path / "run", config), mixed()
    other = MultiTaskData.from_arrays(
        data.x, data.y[:, :2], lengths=data.lengths, classes=classes, for_training=False
    )
    with pytest.raises(DataError, match=message):
        predictor.evaluate(other)


def test_numbers_without_names_are_those_of_the_training_data(config: Make, tmp_path: Path) -> None:
    predictor, data = trained(tmp_path / "run", config), mixed()
    numbers = {"damage": data.y[:, 2], "kind": data.y[:, 3]}
    bare = MultiTaskData.from_arrays(
        data.x, data.y[:, :2], lengths=data.lengths, classes=numbers, for_training=False
    )
    assert bare.class_names["damage"] == ["0", "1", "2"]
    assert predictor.evaluate(bare) == predictor.evaluate(data)


def test_data_without_labels_is_predicted(config: Make, tmp_path: Path) -> None:
    predictor, data = trained(tmp_path / "run", config), mixed()
    bare = MultiTaskData.from_arrays(data.x, None, lengths=data.lengths, for_training=False)
    assert predictor.probabilities(bare).equal(predictor.probabilities(data))
    none = predictor.probabilities(data.subset("val"), "test")
    assert none.shape == (0, 7)


def test_other_classes_are_other_data(config: Make, tmp_path: Path) -> None:
    options = config("mtmlan", balancer="equal", epochs=1)
    Trainer.from_config(options, tmp_path, mixed()).fit()
    data = mixed()
    data.class_names["damage"].reverse()
    with pytest.raises(RunError, match="the data is not the data this run was trained on"):
        Trainer.from_config(options, tmp_path, data).fit(resume=True)


P = torch.tensor([[0.25, 0.2, 0.5, 0.3], [0.75, 0.4, 0.4, 0.2]])
TASKS = Tasks(["sea", "damage"], {"damage": ["none", "mild", "severe"]})


def test_predictions_as_csv() -> None:
    lines = predictions_csv(torch.tensor([3, 5]), P, TASKS).splitlines()
    assert lines == [
        "index,probability/sea,probability/damage/none,probability/damage/mild,"
        "probability/damage/severe,decision/sea,decision/damage",
        "3,0.25,0.2,0.5,0.3,0,mild",
        "5,0.75,0.4,0.4,0.2,1,none",
    ]


def test_predictions_as_json() -> None:
    first, _ = json.loads(predictions_json(torch.tensor([3, 5]), P, TASKS))
    damage = {"none": 0.2, "mild": 0.5, "severe": 0.3}
    assert first["probability"] == {"sea": 0.25, "damage": damage}
    assert first["decision"] == {"sea": 0, "damage": "mild"}


@pytest.mark.parametrize("memory", ["load", "stream"])
def test_classes_in_a_file_that_is_streamed(memory: str, config: Make, tmp_path: Path) -> None:
    data = mixed()
    damage = [
        "" if code.isnan() else data.class_names["damage"][int(code)] for code in data.y[:, 2]
    ]
    np.savez(
        tmp_path / "set.npz",
        x=data.tensors()["x"],
        y=data.y[:, :2],
        y_damage=damage,
        y_kind=data.y[:, 3],
        lengths=data.lengths,
        label_names=["sea", "sun"],
    )
    options = config("mtmlan", balancer="equal", data=str(tmp_path / "set.npz"), memory=memory)
    found = Trainer.from_config(options, tmp_path / "run").fit()
    expected = Trainer.from_config(options, tmp_path / "given", data).fit()
    assert found["test"] == expected["test"]
    loaded = load_data(options, options.data, for_training=False)
    assert Predictor.load(tmp_path / "run", "cpu").evaluate(loaded, "test") == found["test"]
