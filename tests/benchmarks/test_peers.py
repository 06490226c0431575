from __future__ import annotations

import json

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")

from benchmarks.training import peers, pretraining
from benchmarks.training.peer_models import PEERS, Peer, Rows, fit_chain
from fastmtl import data
from fastmtl.training import multilabel_metrics

# What makes the slow ones quick; the rest as in the table.
QUICK = {
    "boosting": {"max_iter": 10},
    "lightgbm": {"n_estimators": 30},
    "mtdnn": {"hidden_sizes": (16,), "pretrain_epochs": 2, "epochs": 20},
    "bpmll": {"hidden_size": 16, "lr": 0.01},
}


def rows(count=120, missing=0.0, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 5)).astype(np.float32)
    y = (x[:, :3] + 0.3 * rng.normal(size=(count, 3)) > 0.3).astype(np.float32)
    y[rng.random(y.shape) < missing] = np.nan
    return Rows(x, y)


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch):
    monkeypatch.setattr("benchmarks.training.peer_models._TREES", 10)
    monkeypatch.setattr("benchmarks.training.peer_models._EPOCHS", 12)


@pytest.fixture
def folder(tmp_path):
    """Data sets as the scripts look for them, one of them with missing labels."""
    (tmp_path / "data").mkdir()
    for name, missing in (("natural_scene", 0.0), ("mosi", 0.2)):
        made = rows(missing=missing)
        np.savez(tmp_path / "data" / f"{name}.npz", x=made.x, y=made.y)
    return tmp_path / "data"


def call(main, capsys, *arguments):
    main([str(argument) for argument in arguments])
    return capsys.readouterr().out


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("name", PEERS)
def test_every_peer_learns_and_its_scores_decide_at_a_half(name, missing):
    train, val = rows(missing=missing), rows(60, seed=1)
    setting = {**PEERS[name].settings[0], **QUICK.get(name, {})}
    scores = PEERS[name].fit(train, val, 0, **setting)(val.x)
    assert scores.shape == (60, 3)
    assert scores.min() >= 0
    assert scores.max() <= 1
    metrics = multilabel_metrics(torch.as_tensor(scores), torch.from_numpy(val.y))
    assert metrics["map"] > 0.6
    again = PEERS[name].fit(train, val, 0, **setting)(val.x)
    np.testing.assert_array_equal(scores, again)


@pytest.mark.parametrize("name", PEERS)
def test_a_label_of_one_value_and_a_single_label(name):
    train = rows(60)
    train.y[:, 1] = 0
    setting = {**PEERS[name].settings[0], **QUICK.get(name, {})}
    assert (PEERS[name].fit(train, train, 0, **setting)(train.x)[:, 1] <= 0.5).all()
    if PEERS[name].least_labels > 1:
        return
    one = Rows(train.x, train.y[:, :1])
    assert PEERS[name].fit(one, one, 0, **setting)(train.x).shape == (60, 1)


@pytest.mark.parametrize("name", sorted(set(PEERS) - {"chain", "bpmll"}))
def test_a_missing_label_is_left_out_of_that_label_alone(name):
    train, val = rows(), rows(60, seed=1)
    absent = np.arange(0, 120, 3)
    train.y[absent, 0] = np.nan
    setting = {**PEERS[name].settings[0], **QUICK.get(name, {})}
    left_out = Rows(np.delete(train.x, absent, 0), np.delete(train.y, absent, 0)[:, :1])
    expected = PEERS[name].fit(left_out, val.of(0), 0, **setting)(val.x)
    scores = PEERS[name].fit(train, val, 0, **setting)(val.x)
    np.testing.assert_allclose(scores[:, :1], expected, rtol=1e-6)


def test_a_chain_reads_the_labels_before():
    """Of a label that is part of another, less is left to learn."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2)).astype(np.float32)
    y = np.stack([x[:, 0] > 0, (x[:, 0] > 0) & (x[:, 1] > 0), rng.random(400) > 0.5], 1)
    y = y.astype(np.float32)
    train = Rows(x, y)
    seed = next(s for s in range(9) if np.random.default_rng(s).permutation(3)[0] == 0)
    chain = fit_chain(train, train, seed, C=1.0)(x)
    alone = PEERS["logistic"].fit(train, train, seed, C=1.0)(x)
    np.testing.assert_allclose(chain[:, 0], alone[:, 0])
    right = [((scores[:, 1] > 0.5) == y[:, 1]).mean() for scores in (chain, alone)]
    assert right[0] > right[1]


def test_runs_are_stored_and_not_done_again(folder, tmp_path, capsys, monkeypatch):
    arguments = [folder, tmp_path / "out", "--only", "natural_scene", "mosi", "--seeds", "2"]
    arguments += ["--peers", "ridge", "perceptron", "--settings", "2"]
    table = call(peers.main, capsys, *arguments)
    assert table.count("\n") == 2 + 4
    stored = tmp_path / "out" / "mosi-ridge-1.json"
    result = json.loads(stored.read_text())
    best = max(result["trials"], key=lambda trial: trial["val_map"])
    assert result["chosen"] == best["setting"]
    assert len(result["trials"]) == 2

    stored.write_text(stored.read_text()[:-9])
    done = []
    fit = PEERS["ridge"].fit

    def counted(*arguments, **setting):
        done.append(setting)
        return fit(*arguments, **setting)

    counting = Peer("ridge regression", counted, PEERS["ridge"].settings)
    monkeypatch.setitem(peers.PEERS, "ridge", counting)
    again = call(peers.main, capsys, *arguments)
    assert len(done) == 2
    without_seconds = [[row.rsplit("|", 2)[0] for row in t.splitlines()] for t in (table, again)]
    assert without_seconds[0] == without_seconds[1]
    call(peers.main, capsys, *arguments, "--settings", "1")
    assert len(done) == 2 + 4


def test_no_choice_reads_the_test_rows(folder):
    dataset = data.load(folder / "natural_scene.npz")
    first = peers.run(PEERS["ridge"], dataset, 0, 4)
    test = dataset.indices("test")
    dataset.y[test] = 1 - dataset.y[test]
    second = peers.run(PEERS["ridge"], dataset, 0, 4)
    for key in ("chosen", "threshold"):
        assert first[key] == second[key]
    assert [t["val_map"] for t in first["trials"]] == [t["val_map"] for t in second["trials"]]


@pytest.mark.parametrize("arguments", [["--seeds", "0"], ["--peers", "svm"], ["--only", "mnist"]])
def test_wrong_arguments(arguments, tmp_path, capsys):
    with pytest.raises(SystemExit):
        peers.main([str(tmp_path), str(tmp_path), *arguments])
    assert "error:" in capsys.readouterr().err


def test_pretraining_is_compared_by_share_of_labels(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pretraining.MTDNN, "_train", quick_train(pretraining.MTDNN._train))
    out = tmp_path / "out.json"
    arguments = [folder, out, "--only", "natural_scene", "--shares", "0.5", "1", "--seeds", "1"]
    table = call(pretraining.main, capsys, *arguments)
    results = json.loads(out.read_text())["results"]
    assert [each["pretraining"] for each in results] == [*pretraining.MODES, *pretraining.MODES[:2]]
    assert table.count("\n") == 2 + 5


def quick_train(train):
    def quick(self, *arguments):
        self.epochs = 2
        train(self, *arguments)

    return quick
