from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from fastmtl.data.tasks import Tasks
from fastmtl.training import Predictor, RunError, Trainer, load_data, tune
from fastmtl.training.calibration import class_temperature, temperatures
from fastmtl.training.checkpoint import read_json, write_json
from fastmtl.training.metrics import multilabel_metrics
from fastmtl.training.tuning import Tuning
from tests.training.conftest import CLASSES


def test_no_threshold_of_one_label_has_a_higher_f1() -> None:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(40, 3, generator=generator) - 1
    y = (torch.rand(40, 3, generator=generator) < z.sigmoid()).float()
    tuning = tune(z, y)
    p = z.double().sigmoid()

    def f1(thresholds: torch.Tensor) -> list[float]:
        found = multilabel_metrics(p, y, threshold=thresholds)["f1"]
        return list(found.values())

    best = f1(torch.tensor(tuning.thresholds))
    for threshold in torch.linspace(0, 1, 101).tolist():
        tried = f1(torch.full((3,), threshold))
        assert all(own >= other for own, other in zip(best, tried, strict=True))


def test_a_label_without_anything_to_choose_by_keeps_the_threshold() -> None:
    z = torch.randn(6, 3)
    y = torch.tensor([0.0, 1.0]).repeat(3).unsqueeze(1).repeat(1, 3)
    y[:, 0], y[:, 1] = 0, math.nan
    tuning = tune(z, y, threshold=0.3)
    assert tuning.thresholds[:2] == (0.3, 0.3)
    assert tuning.temperatures[:2] == (1.0, 1.0)


def test_by_label_and_back() -> None:
    tasks = Tasks(["a", "b", "damage"], {"damage": ["none", "some"]})
    tuning = Tuning((0.25, 0.5), (2.0, 1.0, 3.0))
    assert Tuning.from_dict(tuning.to_dict(tasks), tasks) == tuning


def test_a_run_stores_what_predictor_fits(tmp_path, make_config) -> None:
    config = make_config()
    metrics = Trainer.from_config(config, tmp_path).fit()
    predictor = Predictor.load(tmp_path, "cpu")
    data = load_data(config, config.data)
    names = predictor.label_names
    assert (
        predictor.tune(data)
        == predictor.tuning
        == Tuning.from_dict(metrics["training"], Tasks(names))
    )
    tuned = predictor.tuned()
    f1 = [each.evaluate(data, "val")["f1"] for each in (predictor, tuned)]
    assert all(f1[0][name] <= f1[1][name] for name in names)

    # Calibration leaves decisions as they are, and the probabilities' order in a label.
    sure = predictor.tuned(calibrated=True)
    for split in ("val", "test"):
        assert sure.evaluate(data, split)["f1"] == tuned.evaluate(data, split)["f1"]
    before, after = (each.calibration(data, "val")["brier"] for each in (predictor, sure))
    assert after < before

    half = predictor.tuned(thresholds=False, calibrated=True)
    assert half.evaluate(data, "val")["f1"] == predictor.evaluate(data, "val")["f1"]


def test_a_run_that_stored_nothing(tmp_path, make_config) -> None:
    config = make_config()
    Trainer.from_config(config, tmp_path).fit()
    metrics = read_json(tmp_path / "metrics.json")
    del metrics["training"]["temperatures"]
    write_json(tmp_path / "metrics.json", metrics)
    predictor = Predictor.load(tmp_path, "cpu")
    assert predictor.tuning is None
    with pytest.raises(RunError, match=r"tuning: expected the thresholds .* got none"):
        predictor.tuned()


def test_tasks_of_classes_have_a_temperature(tmp_path, make_config) -> None:
    config = make_config(model="hgfn", data=CLASSES)
    metrics = Trainer.from_config(config, tmp_path).fit()
    predictor = Predictor.load(tmp_path, "cpu")
    data = load_data(config, config.data)
    assert set(metrics["training"]["temperatures"]) == set(predictor.label_names)
    assert set(metrics["training"]["thresholds"]) == set(predictor.tasks.binary)
    sure = predictor.tuned(calibrated=True)
    before, after = (each.evaluate(data, "val") for each in (predictor.tuned(), sure))
    assert {k: v["accuracy"] for k, v in before["classes"].items()} == {
        k: v["accuracy"] for k, v in after["classes"].items()
    }
    # The cross-entropy of the val samples, which the temperatures are fitted on.
    columns = data.y[data.indices("val"), data.tasks.num_binary :].unbind(1)
    for task, y in zip(data.class_names, columns, strict=True):
        p, q = (
            each.tasks.split(each.probabilities(data, "val"))[1][task][~y.isnan()]
            for each in (predictor, sure)
        )
        labels = y[~y.isnan()].long()
        assert F.nll_loss(q.log(), labels) < F.nll_loss(p.log(), labels)


def test_class_temperature_is_the_binary_one_of_two_classes() -> None:
    z, y = torch.randn(50), (torch.rand(50) < 0.4).float()
    both = torch.stack([torch.zeros(50), z], 1)
    expected = temperatures(z.unsqueeze(1), y.unsqueeze(1)).item()
    assert class_temperature(both, y) == pytest.approx(expected, rel=1e-6)
