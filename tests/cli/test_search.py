from __future__ import annotations

import csv
import json

import numpy as np
import torch

from fastmtl.training import Predictor, load_data
from tests.cli.cases import CPU, FLAT, SMALL, npz


def test_a_table_of_the_first_samples(call, run_dir):
    name = Predictor.load(run_dir, "cpu").label_names[0]
    code, out, err = call("search", run_dir, "--data", FLAT, "--concept", name, "--top", 3, *CPU)
    assert (code, err) == (0, "")
    assert out.startswith(name)
    assert "precision at 1: " in out
    assert "of 60" in out


def test_the_ranking_is_that_of_the_probabilities(call, run_dir, tmp_path):
    predictor = Predictor.load(run_dir, "cpu")
    first, second = predictor.label_names[:2]
    data = load_data(predictor.config, FLAT)
    p = predictor.probabilities(data, "test")
    scores = p[:, 0] * (1 - p[:, 1])
    order = data.indices("test")[scores.argsort(descending=True, stable=True)][:5]
    terms = ["--concept", first, "--concept", f"not {second}", "--split", "test", "--top", 5]
    arguments = ["search", run_dir, "--data", FLAT, *terms, *CPU]
    code, text, _ = call(*arguments, "--out", "-")
    rows = list(csv.DictReader(text.splitlines()))
    assert code == 0
    assert [int(row["index"]) for row in rows] == order.tolist()
    expected = (data.y[order, 0] * (1 - data.y[order, 1])).int().tolist()
    assert [int(row["right"]) for row in rows] == expected
    out = tmp_path / "found.json"
    assert call(*arguments, "--out", out)[0] == 0
    found = json.loads(out.read_text())
    assert [each["index"] for each in found["samples"]] == order.tolist()
    assert found["query"] == f"{first} and not {second}"
    assert found["precision_at"]["5"] == sum(expected) / 5
    torch.testing.assert_close(
        torch.tensor([each["score"] for each in found["samples"]]).double(),
        scores.sort(descending=True).values[:5], rtol=1e-5, atol=0,
    )  # fmt: skip
    code, _, err = call(*arguments, "--out", out)
    assert (code, err.count("\n")) == (2, 1)


def test_names_are_shown_and_labels_need_not_be_there(call, tmp_path):
    names = np.array([f"clip [{i}].mp4" for i in range(30)])
    train = npz(tmp_path / "a.npz")
    new = npz(tmp_path / "b.npz", y=None, label_names=None, sample_names=names)
    assert call("train", "--data", train, "--out", tmp_path / "r", *SMALL)[0] == 0
    arguments = ["search", tmp_path / "r", "--data", new, "--concept", "a", *CPU]
    code, out, _ = call(*arguments, "--top", 100)
    assert code == 0
    assert all(name in out for name in names)
    assert "no labels of the run's names" in out
    code, _, err = call(*arguments[:-3], "c", *CPU)
    assert (code, err.count("\n")) == (2, 1)
    assert "--concept: expected one of a, b, got 'c'" in err


def test_a_class_of_a_task_is_a_concept(call, tmp_path):
    kinds = np.array(["mild", "none", "severe", ""])[np.arange(30) % 4]
    data = npz(tmp_path / "a.npz", y_damage=kinds)
    assert call("train", "--data", data, "--out", tmp_path / "r", *SMALL)[0] == 0
    terms = ["--concept", "damage/severe", "--top", 30, "--out", "-"]
    code, text, _ = call("search", tmp_path / "r", "--data", data, *terms, *CPU)
    assert code == 0
    rows = list(csv.DictReader(text.splitlines()))
    given = {"severe": "1", "": ""}
    assert [row["right"] for row in rows] == [given.get(kinds[int(r["index"])], "0") for r in rows]
    code, _, err = call("search", tmp_path / "r", "--data", data, "--concept", "damage", *CPU)
    assert (code, err.count("\n")) == (2, 1)
    assert "--concept: expected one of a, b, damage/mild, damage/none, damage/severe" in err
