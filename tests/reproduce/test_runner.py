from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fastmtl.models import MLKNN
from fastmtl.reproduce import Comparison, Plan, run_all, write_report
from fastmtl.reproduce import execute as execution
from fastmtl.reproduce.execute import flat_features
from fastmtl.training import Interrupted, Reporter, RunError, Trainer, load_data
from fastmtl.training.checkpoint import read_json, seal
from fastmtl.training.lock import locked
from fastmtl.training.steps import Steps

FLAT = "synthetic:disaster?clips=60&frames=3&features=6"
MODALITIES = "synthetic:disaster-multimodal?clips=60&frames=3&text=4&audio=5&video=6"
SMALL = {"epochs": 2, "hidden_size": 4, "attention_size": 3}


def quiet(text):
    pass


def plan(table="mtmlan", **arguments):
    arguments = {"data": FLAT, "seeds": 2, "options": SMALL, "device": "cpu", **arguments}
    return Plan(table, **{"threads": 1, **arguments})


def test_a_run_is_the_training_run_of_its_config(tmp_path):
    own = plan(systems=["ewmtc", "mtmlan"])
    results = run_all(own, tmp_path / "all", say=quiet)
    assert {name: len(runs) for name, runs in results.items()} == {"ewmtc": 2, "mtmlan": 2}
    config = own.config(own.chosen[1], 1)
    metrics = Trainer.from_config(config, tmp_path / "one").fit()
    assert results["mtmlan"][1]["test"] == metrics["test"]
    assert np.shape(results["mtmlan"][1]["weights"]) == (2, 7)
    assert (tmp_path / "all/mtmlan/seed-1/model.safetensors").is_file()


def test_finished_runs_are_kept_and_more_can_be_added(tmp_path, monkeypatch):
    options = {"epochs": 2, "hidden_size": 4}
    first = run_all(plan(systems=["cmlc"], seeds=1, options=options), tmp_path, say=quiet)
    done = []
    execute = execution.execute
    monkeypatch.setattr(
        "fastmtl.reproduce.runner.execute",
        lambda plan, run, *rest: (done.append(run.name), execute(plan, run, *rest))[1],
    )
    own = plan(systems=["cmlc", "wu"], seeds=2, options=options)
    results = run_all(own, tmp_path, say=quiet)
    assert done == ["wu/seed-0", "cmlc/seed-1", "wu/seed-1"]
    assert results["cmlc"][0] == first["cmlc"][0]


class Telling(Reporter):
    def __init__(self):
        self.told = []

    def message(self, text):
        self.told.append(text)


def test_a_reporter_hears_which_run_begins(tmp_path):
    reporter = Telling()
    own = plan(systems=["ewmtc"], options={**SMALL, "epochs": 1})
    run_all(own, tmp_path, say=quiet, reporter=reporter)
    assert reporter.told == ["ewmtc/seed-0:", "ewmtc/seed-1:"]


def test_a_stopped_run_goes_on_to_the_same_result(tmp_path, monkeypatch):
    own = plan(systems=["mtmlan"], seeds=1, options={**SMALL, "epochs": 4})
    whole = run_all(own, tmp_path / "whole", say=quiet)
    train_epoch, epochs = Steps.run, []

    def stopping(self, epoch, *arguments, **options):
        epochs.append(epoch)
        if len(epochs) == 3:
            raise Interrupted("SIGINT")
        return train_epoch(self, epoch, *arguments, **options)

    monkeypatch.setattr(Steps, "run", stopping)
    with pytest.raises(Interrupted):
        run_all(own, tmp_path / "part", say=quiet)
    part = run_all(own, tmp_path / "part", say=quiet)
    assert epochs == [1, 2, 3, 3, 4]
    assert part["mtmlan"][0]["test"] == whole["mtmlan"][0]["test"]


@pytest.mark.slow
def test_processes_give_the_same_results(tmp_path):
    own = plan(systems=["ewmtc", "wu"], seeds=1)
    alone = run_all(own, tmp_path / "alone", say=quiet)
    both = run_all(own, tmp_path / "both", jobs=2, say=quiet)
    for name in alone:
        assert both[name][0]["test"] == alone[name][0]["test"]


def test_every_combination_of_fusion_and_balancing_runs(tmp_path):
    own = plan("hgfn", data=MODALITIES, seeds=1, options={**SMALL, "epochs": 1, "head_size": 3})
    every = [system.name for system in own.paper.systems]
    own = plan("hgfn", data=MODALITIES, seeds=1, options=dict(own.options), systems=every)
    results = run_all(own, tmp_path, say=quiet)
    assert len(results) == 16
    write_report(own, results, tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert "| HGFN + DMTL |" in text
    assert "| victim |" in text
    for name in ("losses.png", "weights.png"):
        assert (tmp_path / name).read_bytes()[1:4] == b"PNG"
    assert set(read_json(tmp_path / "table.json")["rows"]) == set(every)


def test_folds_cover_every_sample_once(tmp_path):
    own = plan("mtdnn", folds=3, systems=["mlknn"], options={"k": 2})
    results = run_all(own, tmp_path, say=quiet)["mlknn"]
    data = own.load()
    tested = [execution._rows(own, run, data)[1] for run in own.runs()]
    assert torch.cat(tested).sort().values.equal(torch.arange(60))
    x, y = flat_features(data), data.y
    train = torch.ones(60, dtype=torch.bool)
    train[tested[1]] = False
    predicted = MLKNN(k=2).fit(x[train], y[train]).predict(x[tested[1]])
    wrong = np.mean(predicted != y[tested[1]].numpy())
    assert results[1]["test"]["hamming_loss"] == pytest.approx(wrong)
    comparison = write_report(own, {"mlknn": results}, tmp_path)
    assert comparison.unit == "fit"
    assert "3 folds" in (tmp_path / "table.md").read_text()
    assert not (tmp_path / "losses.png").exists()


def test_ml_knn_on_the_published_split(shared_data, tmp_path):
    own = Plan(
        "mtdnn", str(shared_data / "mulan/scene-train.arff"), folds=1, seeds=1, systems=["mlknn"]
    )
    result = run_all(own, tmp_path, say=quiet)["mlknn"][0]
    assert result["test"]["hamming_loss"] == pytest.approx(0.0989, abs=0.0005)


def test_jobs_are_checked(tmp_path):
    with pytest.raises(ValueError, match=r"^jobs: expected an integer >= 1, got 0"):
        run_all(plan(), tmp_path, jobs=0)
    assert not list(tmp_path.iterdir())


def result(micro_f1, accuracy=0.5):
    figures = {"hamming_loss": 0.1, "map": None, "one_error": 0.2, "ranking_loss": 0.3}
    test = {"micro_f1": micro_f1, **figures, "accuracy": {"sea": accuracy}}
    return {
        "test": test, "epochs": 3, "seconds_per_epoch": 0.5, "train_loss": [[1.0]], "weights": [[1]]
    }  # fmt: skip


def test_numbers_of_a_comparison():
    own = plan(systems=["ewmtc", "mtmlan"], seeds=6)
    low, high = [0.1, 0.2, 0.3, 0.1, 0.2, 0.3], [0.4, 0.6, 0.5, 0.45, 0.6, 0.5]
    results = {"ewmtc": [result(v) for v in low], "mtmlan": [result(v) for v in high]}
    comparison = Comparison(own, results)
    first, second = comparison.rows
    assert comparison.best == "mtmlan"
    assert second.p_value is None
    assert first.figures["micro_f1"].mean == pytest.approx(0.2)
    assert first.figures["micro_f1"].deviation == pytest.approx(np.std(low, ddof=1))
    assert first.figures["map"].mean is None
    assert comparison.runs == 6
    pytest.importorskip("scipy")
    # All six differences have one sign: 2 of the 2^6 assignments of signs are as extreme.
    assert first.p_value == pytest.approx(2 / 64)


def test_data_is_loaded_before_anything_is_written():
    own = plan(systems=["mtmlan"])
    loaded = load_data(own.config(own.chosen[0], 0), FLAT)
    assert own.load().x.equal(loaded.x)


def test_a_damaged_result_is_made_again(tmp_path):
    own = plan(systems=["ewmtc"], seeds=1)
    first = run_all(own, tmp_path, say=quiet)
    path = tmp_path / "ewmtc/seed-0/result.json"
    for content in (b"", path.read_bytes().replace(b"0.", b"1.", 1)):
        path.write_bytes(content)
        assert run_all(own, tmp_path, say=quiet) == first


@pytest.mark.parametrize(
    "changes",
    [
        {"test": 3},
        {"test": {}},
        {"epochs": "3"},
        {"epochs": 10**400},
        {"seconds_per_epoch": None},
        {"train_loss": 3},
        {"weights": [[1.0, 2.0]]},
        {"train_loss": [[float("nan")] * 2]},
    ],
)
def test_what_is_no_result_is_made_again(tmp_path, changes):
    own, stored = plan(systems=["ewmtc"], seeds=1), result(0.5) | changes
    path = tmp_path / "ewmtc/seed-0/result.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(seal(result(0.5))))
    assert execution.stored_result(own, own.runs()[0], tmp_path) == result(0.5)
    path.write_text(json.dumps(seal(stored)))
    assert execution.stored_result(own, own.runs()[0], tmp_path) is None


def test_a_second_reproduction_in_the_directory_is_refused(tmp_path):
    own = plan(systems=["ewmtc"], seeds=1)
    with locked(tmp_path):
        with pytest.raises(RunError, match="in use by process"):
            run_all(own, tmp_path, say=quiet)
        with pytest.raises(RunError, match="in use by process"):
            write_report(own, {"ewmtc": [result(0.5)]}, tmp_path)
    (tmp_path / ".lock").write_text("process 1")
    (tmp_path / ".reproduce.json.1.tmp").write_text("half")
    run_all(own, tmp_path, say=quiet)
    assert {path.name for path in tmp_path.iterdir()} == {"reproduce.json", "ewmtc"}
