from __future__ import annotations

import numpy as np
import pytest
import torch

from fastmtl.data import load
from fastmtl.models import BPMLL, MLKNN, MTDNN
from fastmtl.models.mtdnn import _summed_error


def problem(rows=80, features=6, labels=3):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, features))
    return X, (X[:, :labels] > 0.2).astype(int)


def small(**parameters):
    return MTDNN(**{"hidden_sizes": (7, 5), "pretrain_epochs": 3, "epochs": 5, **parameters})


def plain_probabilities(model, X):
    """Equation 7 over the network's own weights, sample by sample and label by label."""
    layers = [layer for layer in model.network_ if isinstance(layer, torch.nn.Linear)]
    result = []
    for row in (X - X.mean(0)) / X.std(0):
        h = row
        for index, layer in enumerate(layers):
            o = layer.weight.detach().double().numpy() @ h + layer.bias.detach().double().numpy()
            h = 1 / (1 + np.exp(-o)) if index < len(layers) - 1 else o
        pairs = np.exp(h.reshape(-1, 2))
        result.append(pairs[:, 1] / pairs.sum(1))
    return np.array(result)


def test_probabilities_are_equation_7():
    X, y = problem()
    model = small().fit(X, y)
    assert model.network_[-1].out_features == 6
    expected = plain_probabilities(model, X)
    np.testing.assert_allclose(model.predict_proba(X), expected, rtol=1e-4)
    clear = np.abs(expected - 0.5) > 1e-4
    np.testing.assert_array_equal(model.predict(X)[clear], (expected > 0.5)[clear])


def test_the_error_is_the_cross_entropy_summed_over_labels():
    outputs = torch.randn(9, 8, dtype=torch.float64)
    targets = torch.randint(0, 2, (9, 4))
    pairs = outputs.view(9, 4, 2).log_softmax(2)
    expected = -pairs.gather(2, targets.unsqueeze(2)).sum() / 9
    torch.testing.assert_close(_summed_error(outputs, targets.double()), expected)


def test_pretraining_starts_the_layers_and_sees_no_label():
    X, y = problem()
    model = small(pretrain_epochs=4).fit(X, y)
    assert [rbm.gaussian for rbm in model.rbms_] == [True, False]
    other = small(pretrain_epochs=4).fit(X, 1 - y)
    for ours, theirs in zip(model.rbms_, other.rbms_, strict=True):
        assert ours.weight.equal(theirs.weight)
    with model._seeded():
        network = model._network(3)
    for layer, rbm in zip((network[0], network[3]), model.rbms_, strict=True):
        assert layer.weight.equal(rbm.weight)
        assert layer.bias.equal(rbm.hidden_bias)


def test_unlabelled_samples_are_pretrained_on():
    X, y = problem()
    more = np.random.default_rng(1).normal(size=(200, 6))
    with_more, without = small().fit(X, y, more), small().fit(X, y)
    assert not with_more.rbms_[0].weight.equal(without.rbms_[0].weight)
    with pytest.raises(ValueError, match=r"^unlabelled: expected 6 features as X has, got 2"):
        small().fit(X, y, more[:, :2])


def test_unlabelled_samples_count_for_the_scale():
    X, y = problem(rows=20)
    more = np.random.default_rng(1).normal(3.0, 2.0, size=(60, 6))
    X[:, 0] = 1.0
    rows = np.vstack([X, more])
    model = small().fit(X, y, more)
    np.testing.assert_allclose(model._mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(model._scale, rows.std(0), rtol=1e-12)
    inputs = model._inputs(more, slice(None))
    assert inputs.abs().max() < 5


def test_without_held_out_samples_all_epochs_are_trained():
    X, y = problem()
    model = small(validation_fraction=0.0, epochs=60, lr=0.02).fit(X, y)
    assert model.epochs_ == 60
    assert (model.predict(X) == y).mean() > 0.9


def test_early_stopping_keeps_the_best_epoch():
    X, _ = problem()
    y = np.random.default_rng(1).integers(0, 2, (80, 3))
    model = small(epochs=300, patience=3, lr=0.05, validation_fraction=0.25).fit(X, y)
    assert model.epochs_ < 300


def test_a_handful_of_held_out_samples_does_not_end_the_training():
    X, y = problem(rows=190)
    assert small(patience=1, lr=0.5, epochs=40).fit(X, 1 - y).epochs_ == 40
    X, y = problem(rows=200)
    assert small(patience=1, lr=0.5, epochs=40).fit(X, 1 - y).epochs_ < 40


@pytest.mark.slow
def test_better_than_ml_knn_and_bp_mll_on_scene(shared_data):
    data = load(shared_data / "mulan" / "scene-train.arff")
    test = data.indices("test")
    train = (data.split != 2).nonzero().flatten()
    loss = {
        type(model): np.mean(
            model.fit(data.x[train], data.y[train]).predict(data.x[test]) != data.y[test].numpy()
        )
        for model in (MLKNN(), BPMLL(), MTDNN())
    }
    assert loss[MTDNN] < 0.09 < min(loss[MLKNN], loss[BPMLL])


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"hidden_sizes": ()}, ValueError, "hidden_sizes: expected at least one size"),
        ({"hidden_sizes": (4, 0)}, ValueError, "hidden_sizes: expected at least 1, got 0"),
        ({"hidden_sizes": 4}, TypeError, "hidden_sizes: expected a list of sizes, got 4"),
        ({"pretrain_epochs": -1}, ValueError, "pretrain_epochs: expected at least 0"),
        ({"pretrain_lr": 0.0}, ValueError, "pretrain_lr: expected a finite number > 0"),
        ({"dropout": 1.0}, ValueError, "dropout: expected a probability"),
    ],
)
def test_wrong_parameters(parameters, error, message):
    with pytest.raises(error, match=f"^{message}"):
        small(**parameters).fit(*problem())
