from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import signal
import threading
from dataclasses import replace

import pytest
import torch

from fastmtl.balancing import Equal, GradNorm
from fastmtl.data import DataError, MultiTaskData
from fastmtl.data.tasks import Tasks
from fastmtl.models import HGFN
from fastmtl.training import (
    DivergedError,
    Interrupted,
    Predictor,
    Reporter,
    RunError,
    Trainer,
    arrange,
    build_model,
    epochs,
    load_data,
)
from fastmtl.training.checkpoint import (
    digest,
    load_tensors,
    read_json,
    read_sealed,
    save_tensors,
    seal,
    write_json,
)
from fastmtl.training.predictions import predictions_csv
from tests.training.conftest import CLASSES, MODALITIES, SEQUENCES

FILES = {
    "config.json",
    "model.safetensors",
    "checkpoint.safetensors",
    "metrics.json",
    "history.csv",
    "losses.png",
    "figures.png",
    "weights.png",
}


class StopAt(Reporter):
    """Sends a signal in the middle of an epoch."""

    def __init__(self, epoch, number=signal.SIGINT):
        self.epoch, self.number, self.now = epoch, number, 0

    def epoch_started(self, epoch, epochs, batches):
        self.now = epoch

    def step(self, loss):
        if self.now == self.epoch:
            os.kill(os.getpid(), self.number)


def assert_same_run(first, second):
    """The same weights, optimizer, balancer and figures, bit for bit; only times may differ, and
    what each run is called."""
    for name in ("model.safetensors", "checkpoint.safetensors"):
        (a, values_a), (b, values_b) = load_tensors(first / name), load_tensors(second / name)
        assert a.keys() == b.keys()
        for key in a:
            assert torch.equal(a[key], b[key]), (name, key)
        for record in values_a.get("history", []) + values_b.get("history", []):
            del record["seconds"]
        assert values_a["run"].pop("run") != values_b["run"].pop("run")
        assert values_a == values_b
    metrics_a, metrics_b = read_json(first / "metrics.json"), read_json(second / "metrics.json")
    for metrics in (metrics_a, metrics_b):
        del metrics["training"]["seconds_per_epoch"]
    assert metrics_a == metrics_b


@pytest.mark.draws
@pytest.mark.parametrize("data", [SEQUENCES, MODALITIES, CLASSES])
def test_a_run_draws_its_figures(tmp_path, make_config, data):
    model = "mtmlan" if data == SEQUENCES else "hgfn"
    Trainer.from_config(make_config(model, data=data, epochs=2), tmp_path).fit()
    for name in ("losses.png", "figures.png", "weights.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("balancer", ["equal", "tdb", "dmtl"])
@pytest.mark.parametrize("model", ["mtmlan", "hgfn"])
def test_a_run_writes_its_results(tmp_path, make_config, model, balancer):
    config = make_config(model, balancer=balancer, epochs=2)
    metrics = Trainer.from_config(config, tmp_path).fit()
    assert {path.name for path in tmp_path.iterdir()} == FILES
    assert read_json(tmp_path / "metrics.json") == metrics
    assert metrics["training"].keys() == {
        "epochs",
        "best_epoch",
        "stopped_early",
        "threshold",
        "seconds_per_epoch",
        "thresholds",
        "temperatures",
    }
    for split in ("val", "test"):
        assert {"micro_f1", "hamming_loss", "map", "accuracy"} <= metrics[split].keys()
        assert len(metrics[split]["accuracy"]) == 7
    with open(tmp_path / "history.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    if balancer == "equal":
        assert {row["weight/victim"] for row in rows} == {"1.0"}
    else:
        assert float(rows[1]["weight/victim"]) != 1.0


@pytest.mark.parametrize("at", ["shared", "first", "last"])
def test_every_place_of_the_gradient_norms(tmp_path, make_config, at):
    config = make_config(balance_at=at, shared_features=5, epochs=1)
    Trainer.from_config(config, tmp_path).fit()


def test_training_lowers_the_loss(tmp_path, make_config):
    config = make_config(epochs=25, lr=0.02, hidden_size=8)
    run = Trainer.from_config(config, tmp_path)
    run.fit()
    history = run.progress.history
    assert history[-1].total_train_loss < 0.5 * history[0].total_train_loss


def test_the_same_seed_gives_the_same_run(tmp_path, make_config):
    config = make_config(dropout=0.3)
    for name in ("a", "b"):
        torch.rand(7)
        Trainer.from_config(config, tmp_path / name).fit()
    assert_same_run(tmp_path / "a", tmp_path / "b")
    Trainer.from_config(replace(config, seed=1), tmp_path / "c").fit()
    assert (
        read_json(tmp_path / "a/metrics.json")["val"]
        != read_json(tmp_path / "c/metrics.json")["val"]
    )


def test_a_run_leaves_the_random_state_and_threads_alone(tmp_path, make_config):
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    Trainer.from_config(make_config(dropout=0.3, epochs=1, threads=threads + 1), tmp_path).fit()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("balancer", ["equal", "dmtl"])
@pytest.mark.parametrize("model", ["mtmlan", "hgfn"])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, make_config, model, balancer):
    config = make_config(model, balancer=balancer, dropout=0.2, epochs=4)
    Trainer.from_config(config, tmp_path / "whole").fit()
    for epoch in (1, 3):
        part = tmp_path / f"stopped in {epoch}"
        with pytest.raises(Interrupted):
            Trainer.from_config(config, part, reporter=StopAt(epoch)).fit()
        assert not (part / "metrics.json").exists()
        resumed = Trainer.from_config(config, part)
        torch.rand(5)
        resumed.fit(resume=True)
        assert_same_run(tmp_path / "whole", part)


SCHEDULE = {"warmup": 5, "lr_decay": 0.8, "weight_decay": 0.1, "prior_bias": True}


@pytest.mark.parametrize(
    "options",
    [
        SCHEDULE,
        {"threshold": "micro_f1", "monitor": "micro_f1"},
        {"lr_schedule": "plateau", "lr": 0.2, "epochs": 8},
    ],
)
def test_a_resumed_run_with_a_schedule_or_threshold_is_the_uninterrupted_one(
    tmp_path, make_config, options
):
    config = make_config("hgfn", **{"epochs": 4, **options})
    Trainer.from_config(config, tmp_path / "whole").fit()
    with pytest.raises(Interrupted):
        Trainer.from_config(config, tmp_path / "part", reporter=StopAt(3)).fit()
    Trainer.from_config(config, tmp_path / "part").fit(resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "part")
    Trainer.from_config(replace(config, epochs=2), tmp_path / "longer").fit()
    Trainer.from_config(config, tmp_path / "longer").fit(resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "longer")


def test_the_threshold_of_the_best_epoch_is_kept_and_used(tmp_path, make_config):
    config = make_config(epochs=3, threshold="micro_f1")
    run = Trainer.from_config(config, tmp_path)
    metrics = run.fit()
    best = run.progress.history[run.progress.best_epoch - 1]
    threshold = metrics["training"]["threshold"]
    assert threshold == best.threshold != 0.5
    assert metrics["val"]["micro_f1"] == best.micro_f1
    half = Trainer.from_config(replace(config, threshold="half"), tmp_path / "half").fit()
    assert half["training"]["threshold"] == 0.5
    assert half["val"]["map"] == metrics["val"]["map"]
    assert half["val"]["micro_f1"] <= metrics["val"]["micro_f1"]
    predictor = Predictor.load(tmp_path, "cpu")
    assert predictor.threshold == threshold
    data = load_data(config, config.data)
    assert predictor.evaluate(data, "test") == metrics["test"] == run.evaluate("test")
    text = predictions_csv(
        torch.tensor([0]), torch.tensor([[threshold + 0.01]]), Tasks(["a"]), predictor.threshold
    )
    assert text.splitlines()[1].endswith(",1")


def test_a_run_of_another_version_is_refused_and_still_predicts(tmp_path, make_config):
    config = make_config(epochs=1)
    metrics = Trainer.from_config(config, tmp_path).fit()
    stored = read_sealed(tmp_path / "config.json")
    del stored["train"]["warmup"]
    write_json(tmp_path / "config.json", seal(stored))
    message = "expected the options of this version of fastmtl, .* differ in warmup; train anew"
    with pytest.raises(RunError, match=message):
        Trainer.from_config(config, tmp_path).fit(resume=True)
    data = load_data(config, config.data)
    assert Predictor.load(tmp_path, "cpu").evaluate(data, "test") == metrics["test"]


def test_prior_bias_starts_at_the_frequencies(make_config):
    config = make_config("hgfn", prior_bias=True)
    data = arrange(load_data(config, config.data), "hgfn")
    bias = build_model(config, data).output.bias
    expected = data.subset("train").y.nanmean(0)
    torch.testing.assert_close(bias.sigmoid().squeeze(1), expected)


def test_a_longer_run_continues_a_finished_one(tmp_path, make_config):
    Trainer.from_config(make_config(epochs=4), tmp_path / "whole").fit()
    Trainer.from_config(make_config(epochs=2), tmp_path / "part").fit()
    Trainer.from_config(make_config(epochs=4), tmp_path / "part").fit(resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "part")
    assert read_json(tmp_path / "part/config.json")["train"]["epochs"] == 4


def test_resuming_a_finished_run_changes_nothing(tmp_path, make_config):
    metrics = Trainer.from_config(make_config(epochs=1), tmp_path).fit()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert Trainer.from_config(make_config(epochs=1), tmp_path).fit(resume=True) == metrics
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_results_that_are_missing_are_made_again(tmp_path, make_config):
    metrics = Trainer.from_config(make_config(epochs=1), tmp_path).fit()
    (tmp_path / "metrics.json").unlink()
    again = Trainer.from_config(make_config(epochs=1), tmp_path).fit(resume=True)
    assert again["test"] == metrics["test"]


def test_a_run_does_not_resume_on_other_data_or_another_model(tmp_path, make_config):
    config = make_config(epochs=2)
    with pytest.raises(Interrupted):
        Trainer.from_config(config, tmp_path, reporter=StopAt(2)).fit()
    other = replace(config, data=config.data + "&seed=1")
    with pytest.raises(RunError, match="the data is not the data"):
        Trainer.from_config(other, tmp_path).fit(resume=True)
    with pytest.raises(RunError, match=r"^lr: expected 0\.001 as in the run to resume"):
        Trainer.from_config(replace(config, lr=0.1), tmp_path).fit(resume=True)
    with pytest.raises(RunError, match=r"^hidden_size: expected 4 as in the run to resume"):
        Trainer.from_config(replace(config, hidden_size=5), tmp_path).fit(resume=True)
    stored = read_sealed(tmp_path / "config.json")
    stored["train"]["hidden_size"] = stored["model"]["arguments"]["hidden_size"] = 5
    write_json(tmp_path / "config.json", seal(stored))
    with pytest.raises(RunError, match="does not fit this run"):
        Trainer.from_config(replace(config, hidden_size=5), tmp_path).fit(resume=True)


def test_a_trainer_trains_once(tmp_path, make_config):
    run = Trainer.from_config(make_config(epochs=1), tmp_path / "a")
    metrics = run.fit()
    with pytest.raises(RuntimeError, match="make a new one, or resume"):
        run.fit(overwrite=True)
    assert run.fit(resume=True) == metrics


def test_a_run_stopped_before_its_first_epoch_resumes(tmp_path, make_config):
    config = make_config(epochs=1)
    for _ in range(2):
        run = Trainer.from_config(config, tmp_path / "part", reporter=StopAt(1))
        with pytest.raises(Interrupted):
            run.fit(resume=(tmp_path / "part").exists())
    with pytest.raises(RunError, match=r"model\.safetensors: no such file"):
        Predictor.load(tmp_path / "part", "cpu")
    Trainer.from_config(config, tmp_path / "part").fit(resume=True)
    Trainer.from_config(config, tmp_path / "whole").fit()
    assert_same_run(tmp_path / "part", tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_between_steps_and_are_given_back(tmp_path, make_config, number):
    before = signal.getsignal(number)
    run = Trainer.from_config(make_config(), tmp_path, reporter=StopAt(2, number))
    with pytest.raises(Interrupted, match=number.name):
        run.fit()
    assert signal.getsignal(number) is before
    _, values = load_tensors(tmp_path / "checkpoint.safetensors")
    assert len(values["history"]) == 1


def test_a_run_in_a_thread_works_without_signals(tmp_path, make_config):
    run = Trainer.from_config(make_config(epochs=1), tmp_path)
    thread = threading.Thread(target=run.fit)
    thread.start()
    thread.join()
    assert (tmp_path / "metrics.json").exists()


def test_early_stopping_keeps_the_best_weights(tmp_path, make_config):
    config = make_config(epochs=200, patience=3, lr=0.05, hidden_size=16)
    run = Trainer.from_config(config, tmp_path)
    metrics = run.fit()
    history = run.progress.history
    losses = [record.total_val_loss for record in history]
    best = losses.index(min(losses)) + 1
    assert metrics["training"]["stopped_early"]
    assert metrics["training"]["best_epoch"] == best == len(history) - 3
    assert metrics["val"]["map"] == history[best - 1].map
    data = load_data(config, config.data)
    stored = Predictor.load(tmp_path, "cpu").evaluate(data, "test")
    assert stored == metrics["test"] == run.evaluate("test")


def test_weights_recorded_are_those_of_the_epoch(tmp_path, make_config):
    run = Trainer.from_config(make_config(balancer="tdb", epochs=1), tmp_path)
    run.fit()
    assert run.progress.history[0].weights == run.balancer.weights.tolist()


def test_train_loss_is_the_mean_over_present_labels(tmp_path, make_config):
    config = make_config(epochs=1, lr=1e-12, balancer="equal", standardize=False)
    run = Trainer.from_config(config, tmp_path)
    run.fit()
    data = load_data(config, config.data).subset("train")
    loss = run.loss(run.model(data.x, data.lengths), data.y)
    assert run.progress.history[0].train_loss == pytest.approx(loss.tolist(), rel=1e-4)


def test_a_task_without_validation_labels_is_left_out(tmp_path, make_config):
    y = (torch.rand(40, 2) < 0.5).float()
    split = torch.tensor([0] * 24 + [1] * 8 + [2] * 8)
    y[split == 1, 1] = float("nan")
    data = MultiTaskData.from_arrays(
        torch.randn(40, 3), y, split=[["train", "val", "test"][s] for s in split]
    )
    run = Trainer.from_config(make_config(epochs=2), tmp_path, data)
    metrics = run.fit()
    assert metrics["val"]["accuracy"]["task_1"] is None
    assert run.progress.history[0].val_loss[1] is None


def test_a_set_without_test_samples_has_no_test_figures(tmp_path, make_config):
    split = ["train"] * 20 + ["val"] * 10
    data = MultiTaskData.from_arrays(torch.randn(30, 3), torch.eye(3).repeat(10, 1), split=split)
    assert "test" not in Trainer.from_config(make_config(epochs=1), tmp_path, data).fit()


def test_an_empty_validation_split_is_refused(tmp_path, make_config):
    data = MultiTaskData.from_arrays(
        torch.randn(4, 3), torch.eye(2).repeat(2, 1), split=["test"] * 4, for_training=False
    )
    with pytest.raises(DataError, match="expected samples in train"):
        Trainer.from_config(make_config(balancer="equal"), tmp_path / "run", data)
    assert not (tmp_path / "run").exists()


def test_a_validation_split_without_labels_is_refused(tmp_path, make_config):
    y = torch.eye(3).repeat(10, 1)
    y[20:] = float("nan")
    split = ["train"] * 20 + ["val"] * 10
    data = MultiTaskData.from_arrays(torch.randn(30, 3), y, split=split)
    with pytest.raises(DataError, match="y: expected labels in val, got only missing ones"):
        Trainer.from_config(make_config(), tmp_path / "run", data)
    assert not (tmp_path / "run").exists()


def test_standardisation_is_fitted_on_the_training_split_and_stored(tmp_path, make_config):
    config = make_config("hgfn", epochs=1)
    Trainer.from_config(config, tmp_path / "a").fit()
    data = load_data(config, MODALITIES)
    tensors, _ = load_tensors(tmp_path / "a/model.safetensors")
    mean = data.subset("train").x["audio"].double().mean(0)
    torch.testing.assert_close(tensors["standardizer.audio.mean"].double(), mean)
    Trainer.from_config(replace(config, standardize=False), tmp_path / "b").fit()
    tensors, _ = load_tensors(tmp_path / "b/model.safetensors")
    assert not [name for name in tensors if name.startswith("standardizer.")]
    assert Predictor.load(tmp_path / "b", "cpu").standardizer is None


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, make_config):
    config = make_config(epochs=5, lr=1e30)
    with pytest.raises(DivergedError, match=r"epoch \d: the \w+ loss is nan"):
        Trainer.from_config(config, tmp_path).fit()
    assert not (tmp_path / "metrics.json").exists()
    load_tensors(tmp_path / "checkpoint.safetensors")


def test_gradient_clipping_is_applied(tmp_path, make_config):
    free = Trainer.from_config(make_config(epochs=1), tmp_path / "a")
    clipped = Trainer.from_config(make_config(epochs=1, clip_grad_norm=1e-9), tmp_path / "b")
    start = [parameter.detach().clone() for parameter in clipped.model.parameters()]
    free.fit()
    clipped.fit()

    def moved(run):
        return sum(
            (a - b).abs().sum().item() for a, b in zip(start, run.model.parameters(), strict=True)
        )

    assert moved(clipped) < moved(free)


def test_a_full_disk_keeps_what_is_whole(tmp_path, make_config, monkeypatch):
    monkeypatch.setattr(epochs, "CHECKPOINT_SECONDS", 0.0)
    real = os.fsync
    calls = []

    def full_after_six(descriptor):
        calls.append(descriptor)
        if len(calls) > 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full_after_six)
    config = make_config(epochs=6)
    with pytest.raises(OSError, match=r"No space left.*safetensors"):
        Trainer.from_config(config, tmp_path / "part").fit()
    assert not [path.name for path in (tmp_path / "part").iterdir() if path.name.startswith(".")]
    monkeypatch.undo()
    Trainer.from_config(config, tmp_path / "part").fit(resume=True)
    Trainer.from_config(config, tmp_path / "whole").fit()
    assert_same_run(tmp_path / "part", tmp_path / "whole")


def test_overwriting_replaces_the_run_and_nothing_else(tmp_path, make_config):
    config = make_config(epochs=1)
    Trainer.from_config(config, tmp_path).fit()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="expected a new or empty directory"):
        Trainer.from_config(config, tmp_path).fit()
    Trainer.from_config(replace(config, seed=5), tmp_path).fit(overwrite=True)
    assert (tmp_path / "notes.txt").exists()
    assert json.loads((tmp_path / "config.json").read_text())["train"]["seed"] == 5


def test_a_model_of_ones_own_trains_and_is_restored(tmp_path, make_config):
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(6, 7)

        def forward(self, x, lengths=None):
            return self.linear(x.mean(1))

    config = make_config(balancer="equal", epochs=2)
    data = load_data(config, config.data)
    Trainer(Own(), Equal(7), data, config, tmp_path).fit()
    with pytest.raises(RunError, match=r"model of your own"):
        Predictor.load(tmp_path, "cpu")
    predictor = Predictor.load(tmp_path, "cpu", model=Own())
    assert predictor.evaluate(data, "val") == read_json(tmp_path / "metrics.json")["val"]
    Trainer(Own(), Equal(7), data, replace(config, epochs=3), tmp_path).fit(resume=True)


def test_what_was_given_is_recorded_and_not_what_options_would_have_made(tmp_path, make_config):
    config = make_config("hgfn")
    data = replace(load_data(config, MODALITIES), name="own arrays")
    sizes = {name: shape[-1] for name, shape in data.modalities.items()}
    model = HGFN(sizes, 7, hidden_size=5, sequence_modalities=["video"])
    given = replace(config, model="mtmlan", balancer="dmtl", data="synthetic:disaster", epochs=1)
    Trainer(model, GradNorm(model), data, given, tmp_path / "own").fit()
    stored = read_json(tmp_path / "own/config.json")
    assert stored["model"]["class"] == "HGFN"
    assert stored["model"]["arguments"]["hidden_size"] == 5
    assert stored["balancer"] == {"class": "GradNorm"}
    assert stored["data"]["name"] == "own arrays"
    assert stored["train"]["model"] == "hgfn"
    unread = {"balancer", "data", "hidden_size", "alpha", "theta", "modalities"}
    assert not unread & stored["train"].keys()
    predictor = Predictor.load(tmp_path / "own", "cpu")
    assert predictor.title == "hgfn, GradNorm"
    assert predictor.evaluate(data, "val") == read_json(tmp_path / "own/metrics.json")["val"]
    with pytest.raises(RunError, match=r"^balancer: expected GradNorm\(\) .* got Equal\(\)"):
        Trainer(model, Equal(7), data, given, tmp_path / "own").fit(resume=True)
    other = HGFN(sizes, 7, hidden_size=6, sequence_modalities=["video"])
    with pytest.raises(RunError, match=r"^model: expected HGFN\(.*hidden_size=5.*=6"):
        Trainer(other, GradNorm(other), data, given, tmp_path / "own").fit(resume=True)

    Trainer.from_config(replace(config, epochs=1), tmp_path / "arrays", data).fit()
    stored = read_json(tmp_path / "arrays/config.json")
    assert stored["train"]["hidden_size"] == 4
    assert "data" not in stored["train"]


def damaged(path, change):
    """The file written anew, with a right checksum, after `change` of its tensors and values."""
    tensors, values = load_tensors(path)
    change(tensors, values)
    save_tensors(path, tensors, values)


@pytest.mark.parametrize("kind", ["model", "balancer", "optimizer", "best"])
def test_a_checkpoint_without_an_entry_is_refused(tmp_path, make_config, kind):
    Trainer.from_config(make_config(epochs=1), tmp_path).fit()

    def remove(tensors, _):
        del tensors[max(name for name in tensors if name.startswith(f"{kind}."))]

    damaged(tmp_path / "checkpoint.safetensors", remove)
    with pytest.raises(RunError, match="does not fit this run"):
        Trainer.from_config(make_config(epochs=2), tmp_path).fit(resume=True)


def test_a_checkpoint_without_any_optimizer_entry_is_refused(tmp_path, make_config):
    Trainer.from_config(make_config(epochs=1), tmp_path).fit()

    def remove(tensors, _):
        for name in [name for name in tensors if name.startswith("optimizer.")]:
            del tensors[name]

    damaged(tmp_path / "checkpoint.safetensors", remove)
    with pytest.raises(RunError, match=r"optimizer: expected 0\.exp_avg, got none"):
        Trainer.from_config(make_config(epochs=2), tmp_path).fit(resume=True)


@pytest.mark.parametrize("name", ["standardizer.x.mean", "standardizer.x.scale", "model."])
def test_a_model_without_an_entry_is_refused(tmp_path, make_config, name):
    Trainer.from_config(make_config(epochs=1), tmp_path).fit()
    path = tmp_path / "model.safetensors"
    damaged(path, lambda t, _: t.pop(next(each for each in t if each.startswith(name))))
    with pytest.raises(RunError, match=r"model\.safetensors: does not fit config\.json"):
        Predictor.load(tmp_path, "cpu")


def test_files_of_another_run_are_refused(tmp_path, make_config):
    for name, options in (("a", {}), ("b", {}), ("c", {"lr": 0.1})):
        Trainer.from_config(make_config(epochs=1, **options), tmp_path / name).fit()
    for other in "bc":
        for name in ("model.safetensors", "checkpoint.safetensors"):
            (tmp_path / "a" / name).write_bytes((tmp_path / other / name).read_bytes())
        with pytest.raises(RunError, match=r"model\.safetensors: belongs to another run"):
            Predictor.load(tmp_path / "a", "cpu")
        with pytest.raises(RunError, match=r"checkpoint\.safetensors: belongs to another run"):
            Trainer.from_config(make_config(epochs=2), tmp_path / "a").fit(resume=True)


def test_a_run_killed_before_its_first_checkpoint_begins_anew(tmp_path, make_config):
    config = make_config(epochs=1)
    with pytest.raises(Interrupted):
        Trainer.from_config(config, tmp_path / "part", reporter=StopAt(1)).fit()
    (tmp_path / "part/checkpoint.safetensors").unlink()
    Trainer.from_config(config, tmp_path / "part").fit(resume=True)
    Trainer.from_config(config, tmp_path / "whole").fit()
    assert_same_run(tmp_path / "part", tmp_path / "whole")


@pytest.mark.parametrize("name", ["model.safetensors", "metrics.json"])
def test_what_a_finished_run_lost_is_made_again(tmp_path, make_config, name):
    config = make_config(epochs=1)
    Trainer.from_config(config, tmp_path).fit()
    shutil.copytree(tmp_path, tmp_path / "before")
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-9])
    Trainer.from_config(config, tmp_path).fit(resume=True)
    if name == "metrics.json":
        assert read_json(tmp_path / name) == read_json(tmp_path / "before" / name)
    else:
        found, about = load_tensors(tmp_path / name)
        before, of = load_tensors(tmp_path / "before" / name)
        assert (digest(found), about) == (digest(before), of)


def test_figures_that_were_changed_are_made_again(tmp_path, make_config):
    metrics = Trainer.from_config(make_config(epochs=1), tmp_path).fit()
    path = tmp_path / "metrics.json"
    path.write_text(path.read_text().replace("0.", "1.", 1))
    assert Trainer.from_config(make_config(epochs=1), tmp_path).fit(resume=True) == metrics
    assert read_json(path) == metrics


class Second(Reporter):
    """In the first epoch, starts a second run in the same directory."""

    def __init__(self, start):
        self.start, self.error = start, None

    def epoch_started(self, epoch, epochs, batches):
        if epoch == 1:
            with pytest.raises(RunError) as caught:
                self.start()
            self.error = str(caught.value)


@pytest.mark.parametrize("option", ["resume", "overwrite"])
def test_a_second_run_in_the_directory_is_refused(tmp_path, make_config, option):
    config = make_config(epochs=2)

    def start():
        Trainer.from_config(config, tmp_path / "a").fit(**{option: True})

    reporter = Second(start)
    Trainer.from_config(config, tmp_path / "a", reporter=reporter).fit()
    assert f"a: in use by process {os.getpid()} on " in reporter.error
    Trainer.from_config(config, tmp_path / "b").fit()
    assert_same_run(tmp_path / "a", tmp_path / "b")


class Removing(Reporter):
    """Replaces the directory of the run by another one in the first epoch."""

    def __init__(self, path):
        self.path = path

    def epoch_started(self, epoch, epochs, batches):
        shutil.rmtree(self.path)
        self.path.mkdir()


def test_a_directory_that_was_replaced_is_not_written_to(tmp_path, make_config):
    run = Trainer.from_config(
        make_config(epochs=1), tmp_path / "a", reporter=Removing(tmp_path / "a")
    )
    with pytest.raises(RunError, match="a: was removed or replaced"):
        run.fit()
    assert not list((tmp_path / "a").iterdir())


@pytest.mark.slow
def test_natural_scenes_are_learned(tmp_path, make_config, shared_data):
    config = make_config(data=str(shared_data / "natural_scene.npz"), epochs=6, hidden_size=32)
    metrics = Trainer.from_config(config, tmp_path).fit()
    assert metrics["test"]["map"] > 0.55


@pytest.mark.slow
def test_sentiment_is_learned_from_three_modalities(tmp_path, make_config, shared_data):
    config = make_config("hgfn", data=str(shared_data / "mosi.npz"), epochs=3, hidden_size=32)
    metrics = Trainer.from_config(config, tmp_path).fit()
    assert metrics["test"]["accuracy"]["positive"] > 0.65


def test_arranging_twice_is_arranging_once(make_config):
    config = make_config()
    data = load_data(config, config.data)
    assert torch.equal(arrange(data, "mtmlan").x, data.x)


def test_a_stop_during_the_last_evaluation_is_resumed(tmp_path, make_config, monkeypatch):
    config = make_config(epochs=1)
    run = Trainer.from_config(config, tmp_path / "part")
    figures = run.evaluation.figures

    def measure_then_stop(*arguments):
        measured = figures(*arguments)
        os.kill(os.getpid(), signal.SIGINT)
        return measured

    monkeypatch.setattr(run.evaluation, "figures", measure_then_stop)
    with pytest.raises(Interrupted):
        run.fit()
    Trainer.from_config(config, tmp_path / "part").fit(resume=True)
    Trainer.from_config(config, tmp_path / "whole").fit()
    assert_same_run(tmp_path / "part", tmp_path / "whole")


def test_features_that_give_nan_are_named_and_not_predicted(tmp_path, make_config):
    config = make_config(epochs=1)
    Trainer.from_config(config, tmp_path).fit()
    predictor = Predictor.load(tmp_path, "cpu")
    data = load_data(config, config.data)
    with torch.no_grad():
        next(predictor.model.parameters()).fill_(float("nan"))
    with pytest.raises(DataError, match=r"x: .* got NaN for the sample in row 0"):
        predictor.probabilities(data)


def test_a_model_that_gives_nan_stops_the_run(tmp_path, make_config, monkeypatch):
    run = Trainer.from_config(make_config(epochs=1), tmp_path)
    measured = run.evaluation
    logits, first = measured.logits, torch.tensor([0])
    monkeypatch.setattr(measured, "logits", lambda *a: logits(*a).index_fill(0, first, torch.nan))
    monkeypatch.setattr(measured, "loss", lambda z, y: z.nan_to_num().square().mean(0))
    with pytest.raises(DivergedError, match="the model gives NaN"):
        run.fit()
