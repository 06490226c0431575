from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from fastmtl.training import Predictor, load_data
from fastmtl.training.checkpoint import read_json
from tests.cli.cases import CPU, FLAT, SMALL, npz


def test_evaluate_repeats_metrics_json(call, run_dir):
    code, out, _ = call("evaluate", run_dir, "--data", FLAT, "--json", *CPU)
    metrics = read_json(run_dir / "metrics.json")
    del metrics["training"]
    assert (code, json.loads(out)) == (0, metrics)
    code, out, _ = call("evaluate", run_dir, "--data", FLAT, "--split", "test", *CPU)
    assert code == 0
    assert f"{metrics['test']['hamming_loss']:.4f}" in out
    assert "12 test of 60 samples" in out
    assert "val" not in out


def test_predict_writes_a_row_for_every_sample(call, run_dir, tmp_path):
    out = tmp_path / "p.csv"
    told = f"60 samples, 7 labels in {out}\n"
    assert call("predict", run_dir, "--data", FLAT, "--out", out, *CPU) == (0, told, "")
    with open(out, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    predictor = Predictor.load(run_dir, "cpu")
    data = load_data(predictor.config, FLAT)
    expected = predictor.probabilities(data)
    assert [int(row["index"]) for row in rows] == list(range(60))
    for task, name in enumerate(data.label_names):
        p = torch.tensor([float(row[f"probability/{name}"]) for row in rows], dtype=torch.float64)
        torch.testing.assert_close(p, expected[:, task], rtol=1e-5, atol=0)
        decided = torch.tensor([int(row[f"decision/{name}"]) for row in rows]).bool()
        assert torch.equal(decided, expected[:, task] > 0.5)


def test_predict_a_split_with_the_indices_of_the_data(call, run_dir, tmp_path):
    out = tmp_path / "p.csv"
    code, _, _ = call("predict", run_dir, "--data", FLAT, "--split", "test", "--out", out, *CPU)
    assert code == 0
    with open(out, encoding="utf-8") as file:
        index = [int(row["index"]) for row in csv.DictReader(file)]
    config = Predictor.load(run_dir, "cpu").config
    assert index == load_data(config, FLAT).indices("test").tolist()


def test_predict_writes_the_names_of_samples(call, tmp_path):
    names = [f"clip {i}.mp4" for i in range(30)]
    data = npz(tmp_path / "a.npz", sample_names=np.array(names))
    run, out = tmp_path / "r", tmp_path / "p.csv"
    assert call("train", "--data", data, "--out", run, *SMALL)[0] == 0
    assert call("predict", run, "--data", data, "--out", out, *CPU)[0] == 0
    with open(out, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == names
    arguments = ["--split", "test", "--out", tmp_path / "p.json"]
    assert call("predict", run, "--data", data, *arguments, *CPU)[0] == 0
    found = json.loads((tmp_path / "p.json").read_text())
    assert [each["name"] for each in found] == [names[each["index"]] for each in found]


def test_predict_needs_no_labels(call, tmp_path):
    train, new = npz(tmp_path / "a.npz"), npz(tmp_path / "b.npz", y=None, label_names=None, rows=3)
    assert call("train", "--data", train, "--out", tmp_path / "r", *SMALL)[0] == 0
    assert call("predict", tmp_path / "r", "--data", new, "--out", tmp_path / "p.csv", *CPU)[0] == 0
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 4
    code, _, err = call("evaluate", tmp_path / "r", "--data", new, *CPU)
    assert code == 2
    assert "labels" in err


def test_there_must_be_a_run_to_resume_evaluate_or_predict(call, tmp_path):
    out = ["--out", tmp_path / "p.csv"]
    for arguments in (
        ["train", "--out", tmp_path / "r", "--resume"],
        ["evaluate", tmp_path / "r", "--data", FLAT],
        ["predict", tmp_path / "r", "--data", FLAT, *out],
    ):
        code, _, err = call(*arguments)
        assert (code, err.count("\n")) == (2, 1)
        assert "config.json: no such file" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_damaged_run_is_named(call, run_dir, name):
    content = (run_dir / name).read_bytes()
    (run_dir / name).write_bytes(content[: len(content) // 2])
    code, _, err = call("evaluate", run_dir, "--data", FLAT)
    assert (code, err.count("\n")) == (2, 1)
    assert name in err


def test_data_of_another_kind_is_refused(call, tmp_path):
    train = npz(tmp_path / "a.npz")
    assert call("train", "--data", train, "--out", tmp_path / "r", *SMALL)[0] == 0
    for other, named in (
        (npz(tmp_path / "wide.npz", features=7), "x: expected the feature sizes"),
        (npz(tmp_path / "other.npz", labels=("a", "c")), "label_names: expected the labels"),
        (tmp_path / "absent.npz", "an existing file"),
    ):
        out = ["--out", tmp_path / "p.csv"]
        for arguments in (["evaluate"], ["predict", *out]):
            command, *rest = arguments
            code, _, err = call(command, tmp_path / "r", "--data", other, *rest, *CPU)
            assert (code, err.count("\n")) == (2, 1)
            assert named in err
    assert not (tmp_path / "p.csv").exists()


def test_a_wrong_split_is_named(call, run_dir, tmp_path):
    for command in (["evaluate", run_dir], ["predict", run_dir, "--out", tmp_path / "p.csv"]):
        code, _, err = call(*command, "--data", FLAT, "--split", "dev")
        assert (code, err.count("\n")) == (2, 1)
        assert "--split: expected one of train, val, test, all, got 'dev'" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "name", "options"),
    [
        ("mtmlan", "mulan/scene-train.arff", []),
        ("hgfn", "mulan/yeast-train.arff", ["--modalities", "expression=0:79,phylogeny=79:103"]),
        ("hgfn", "yt8m_top100.npz", ["--batch-size", "128"]),
        ("mtmlan", "natural_scene.npz", []),
        ("hgfn", "mosi.npz", []),
    ],
)
def test_real_data_goes_through_every_command(call, shared_data, tmp_path, model, name, options):
    data, run = shared_data / name, tmp_path / "run"
    arguments = ["--data", data, "--out", run, "--hidden-size", "16", "--epochs", "1", *options]
    assert call("train", "--model", model, *arguments, *CPU)[0] == 0
    code, out, _ = call("evaluate", run, "--data", data, "--json", *CPU)
    metrics = read_json(run / "metrics.json")
    assert (code, json.loads(out)) == (0, {k: metrics[k] for k in ("val", "test")})
    assert call("predict", run, "--data", data, "--out", tmp_path / "p.csv", *CPU)[0] == 0


def test_an_arff_file_with_its_labels_elsewhere(call, tmp_path):
    rows = "".join(f"{i % 5},{i % 3},{i % 2},{i // 2 % 2}\n" for i in range(30))
    header = "@relation r\n@attribute u numeric\n@attribute v numeric\n"
    header += "@attribute a {0,1}\n@attribute b {0,1}\n@data\n"
    (tmp_path / "flat.arff").write_text(header + rows)
    (tmp_path / "names.xml").write_text(
        '<labels xmlns="http://mulan.sourceforge.net/labels">'
        '<label name="a"></label><label name="b"></label></labels>'
    )
    data = ["--data", tmp_path / "flat.arff", "--xml", tmp_path / "names.xml"]
    assert call("train", *data, "--out", tmp_path / "r", *SMALL)[0] == 0
    code, out, _ = call("evaluate", tmp_path / "r", *data, "--json", *CPU)
    assert (code, json.loads(out)["test"]["accuracy"].keys()) == (0, {"a", "b"})
    assert call("predict", tmp_path / "r", *data, "--out", tmp_path / "p.csv", *CPU)[0] == 0


def test_predict_asks_before_it_replaces_a_file(call, run_dir, tmp_path):
    out = tmp_path / "p.csv"
    out.write_text("mine")
    arguments = ["predict", run_dir, "--data", FLAT, "--out", out, *CPU]
    code, _, err = call(*arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert "p.csv: expected a new file, got one that is there (--overwrite replaces it)" in err
    assert out.read_text() == "mine"
    assert call(*arguments, "--overwrite")[0] == 0
    assert len(out.read_text().splitlines()) == 61


def test_predict_prints_or_writes_json(call, run_dir, tmp_path):
    arguments = ["predict", run_dir, "--data", FLAT, *CPU]
    assert call(*arguments, "--out", tmp_path / "p.csv")[0] == 0
    text = (tmp_path / "p.csv").read_text()
    assert call(*arguments, "--out", "-") == (0, text, "")
    assert call(*arguments, "--out", tmp_path / "p.json")[0] == 0
    rows = list(csv.DictReader(text.splitlines()))
    for row, sample in zip(rows, read_list(tmp_path / "p.json"), strict=True):
        assert int(row["index"]) == sample["index"]
        for kind in ("probability", "decision"):
            assert {f"{kind}/{k}": v for k, v in sample[kind].items()} == {
                k: float(v) for k, v in row.items() if k.startswith(kind)
            }


def read_list(path):
    return json.loads(path.read_text())


def test_labels_without_names_serve(call, tmp_path):
    train, new = npz(tmp_path / "a.npz"), npz(tmp_path / "b.npz", label_names=None)
    more = npz(tmp_path / "c.npz", labels=("a", "b", "c"), label_names=None)
    run, out = tmp_path / "r", ["--out", tmp_path / "p.csv", "--overwrite"]
    assert call("train", "--data", train, "--out", run, *SMALL)[0] == 0
    for data in (new, more):
        assert call("predict", run, "--data", data, *out, *CPU)[0] == 0
    code, printed, _ = call("evaluate", run, "--data", new, "--json", *CPU)
    assert (code, json.loads(printed)["val"]) == (0, read_json(run / "metrics.json")["val"])
    code, _, err = call("evaluate", run, "--data", more, *CPU)
    assert (code, err.count("\n")) == (2, 1)
    assert "y: expected 2 columns as in the training data, got 3" in err


def test_features_in_a_file_go_through_every_command(call, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"x": rng.integers(-9, 9, (40, 5)), "y": rng.integers(0, 2, (40, 2))}
    for name, value in arrays.items():
        np.save(tmp_path / f"{name}.npy", value.astype("i1"))
    found = []
    for memory in ("load", "stream"):
        run, out = tmp_path / memory, tmp_path / f"{memory}.csv"
        data = ["--data", tmp_path, "--memory", memory]
        small = ["--epochs", 1, "--hidden-size", 4, "--attention-size", 3]
        code, told, _ = call("train", *data, "--out", run, *small, *CPU)
        assert (code, "read from the file" in told) == (0, memory == "stream")
        code, figures, _ = call("evaluate", run, *data, "--json", *CPU)
        assert code == 0
        assert call("predict", run, *data, "--out", out, *CPU)[0] == 0
        found.append((figures, out.read_text()))
    assert found[0] == found[1]
    code, _, told = call("evaluate", run, "--data", FLAT, "--memory", "stream", *CPU)
    assert code == 2
    assert "memory: expected auto or load" in told


def test_evaluate_by_tuned_thresholds(call, run_dir):
    options = ("--data", FLAT, "--thresholds", "tuned", *CPU)
    code, out, _ = call("evaluate", run_dir, *options, "--json")
    metrics = json.loads(out)
    predictor = Predictor.load(run_dir, "cpu").tuned()
    data = load_data(predictor.config, FLAT)
    assert (code, metrics["test"]["f1"]) == (0, predictor.evaluate(data, "test")["f1"])
    code, out, _ = call("evaluate", run_dir, *options, "--calibrated")
    told = " ".join(out.split())
    assert code == 0
    assert "Brier score" in told
    assert "thresholds and temperatures by label fitted on the run's validation split" in told
    # Without stored ones they are fitted on the data.
    (run_dir / "metrics.json").unlink()
    code, out, _ = call("evaluate", run_dir, *options, "--json")
    assert (code, json.loads(out)) == (0, metrics)
    code, _, err = call("evaluate", run_dir, "--data", FLAT, "--thresholds", "best", *CPU)
    assert code == 2
    assert err.startswith("fastmtl: --thresholds: expected one of run, tuned")


def test_predict_by_tuned_thresholds(call, run_dir, tmp_path):
    out = tmp_path / "p.csv"
    options = ("--thresholds", "tuned", "--calibrated", *CPU)
    assert call("predict", run_dir, "--data", FLAT, "--out", out, *options)[0] == 0
    predictor = Predictor.load(run_dir, "cpu").tuned(calibrated=True)
    expected = predictor.probabilities(load_data(predictor.config, FLAT))
    with open(out, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for task, name in enumerate(predictor.label_names):
        p = torch.tensor([float(row[f"probability/{name}"]) for row in rows], dtype=torch.float64)
        torch.testing.assert_close(p, expected[:, task], rtol=1e-5, atol=1e-12)
        decided = torch.tensor([int(row[f"decision/{name}"]) for row in rows]).bool()
        assert torch.equal(decided, expected[:, task] > predictor.threshold[task])
