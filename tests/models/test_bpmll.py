from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from fastmtl.data import load
from fastmtl.models import BPMLL
from fastmtl.models.bpmll import best_thresholds, pairwise_loss
from tests.tolerances import assert_close


def plain_loss(outputs, targets):
    """The paper's double sum, pair by pair."""
    total = 0.0
    for c, y in zip(outputs.tolist(), targets.tolist(), strict=True):
        own = [k for k in range(len(y)) if y[k] == 1]
        others = [k for k in range(len(y)) if y[k] == 0]
        if own and others:
            pairs = sum(math.exp(-(c[k] - c[j])) for k in own for j in others)
            total += pairs / (len(own) * len(others))
    return total / len(outputs)


def misplaced(c, y, t):
    return sum((v <= t) if label else (v > t) for v, label in zip(c, y, strict=True))


@pytest.mark.parametrize("labels", [1, 2, 7])
def test_loss_is_the_sum_over_pairs(labels):
    outputs = torch.rand(30, labels, dtype=torch.float64) * 2 - 1
    targets = torch.randint(0, 2, (30, labels)).double()
    expected = torch.tensor(plain_loss(outputs, targets), dtype=torch.float64)
    assert_close(pairwise_loss(outputs, targets), expected)


def test_gradient_is_that_of_the_paper():
    outputs = (torch.rand(1, 5, dtype=torch.float64) * 2 - 1).requires_grad_()
    targets = torch.tensor([[1.0, 0, 0, 1, 0]], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(pairwise_loss(outputs, targets), outputs)
    c = outputs[0].tolist()
    for label in range(5):
        if targets[0, label]:
            terms = [-math.exp(-(c[label] - c[other])) for other in (1, 2, 4)]
        else:
            terms = [math.exp(-(c[own] - c[label])) for own in (0, 3)]
        assert float(gradient[0, label]) == pytest.approx(sum(terms) / 6, rel=1e-10)


def test_a_sample_with_all_labels_or_none_has_no_error():
    outputs = torch.randn(2, 3, requires_grad=True)
    pairwise_loss(outputs, torch.tensor([[1.0, 1, 1], [0, 0, 0]])).backward()
    assert outputs.grad is not None
    assert outputs.grad.eq(0).all()


@pytest.mark.parametrize("levels", [3, 1000])
def test_thresholds_misplace_the_fewest(levels):
    outputs = torch.randint(-levels, levels + 1, (200, 6)) / (1.5 * levels)
    targets = torch.randint(0, 2, (200, 6)).float()
    found = best_thresholds(outputs, targets)
    for c, y, t in zip(outputs.tolist(), targets.tolist(), found.tolist(), strict=True):
        edges = sorted({-1.0, *c, 1.0})
        middles = [(a + b) / 2 for a, b in itertools.pairwise(edges)]
        counts = [misplaced(c, y, middle) for middle in middles]
        assert misplaced(c, y, t) == min(counts)
        assert t == pytest.approx(middles[counts.index(min(counts))], abs=1e-6)


def test_the_threshold_is_a_least_squares_fit():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 5))
    y = (X[:, :3] > 0).astype(int)
    model = BPMLL(hidden_size=6, epochs=10).fit(X, y)
    scaled = torch.from_numpy(((X - X.mean(0)) / X.std(0)).astype(np.float32))
    with torch.no_grad():
        outputs = model.network_(scaled).double()
    targets = best_thresholds(outputs, torch.from_numpy(y)).numpy()
    columns = np.hstack([outputs.numpy(), np.ones((80, 1))])
    expected = np.linalg.lstsq(columns, targets, rcond=None)[0]
    np.testing.assert_allclose(model.threshold_.numpy(), expected, rtol=1e-4, atol=1e-6)
    decided = outputs.numpy() > (columns @ expected)[:, None]
    assert (model.predict(X) == decided).mean() > 0.99
    np.testing.assert_array_equal(model.predict(X), model.predict_proba(X) > 0.5)


def test_hidden_units_are_a_fifth_of_the_features():
    X = np.random.default_rng(0).normal(size=(30, 20))
    model = BPMLL(epochs=1).fit(X, X[:, :2] > 0)
    assert model.network_[0].out_features == 4


def test_labels_never_and_always_there():
    X = np.random.default_rng(0).normal(size=(40, 3))
    y = np.stack([np.zeros(40), np.ones(40), X[:, 0] > 0], 1)
    predicted = BPMLL(hidden_size=4, epochs=60, lr=0.02).fit(X, y).predict(X)
    assert (predicted[:, :2] == y[:, :2]).mean() > 0.9


def test_a_single_label_has_no_pairs_to_learn_from():
    X = np.random.default_rng(0).normal(size=(40, 3))
    with pytest.warns(UserWarning, match=r"^y: expected at least 2 labels, .*: from 1"):
        BPMLL(epochs=1).fit(X, X[:, :1] > 0)


def test_hamming_loss_on_yeast(shared_data):
    """The paper has 0.206 in ten-fold cross-validation, where a sample has 4.2 of 14 labels."""
    data = load(shared_data / "mulan" / "yeast-train.arff")
    test = data.indices("test")
    train = (data.split != 2).nonzero().flatten()
    model = BPMLL().fit(data.x[train], data.y[train])
    assert np.mean(model.predict(data.x[test]) != data.y[test].numpy()) < 0.22


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"hidden_size": 0}, ValueError, "hidden_size: expected at least 1, got 0"),
        ({"epochs": 0}, ValueError, "epochs: expected at least 1"),
        ({"batch_size": 2.0}, TypeError, "batch_size: expected an int"),
        ({"lr": 0}, ValueError, "lr: expected a finite number > 0"),
        ({"weight_decay": -1}, ValueError, "weight_decay: expected a finite number >= 0"),
        ({"validation_fraction": 1}, ValueError, "validation_fraction: expected a share"),
        ({"patience": 0}, ValueError, "patience: expected at least 1"),
        ({"random_state": None}, TypeError, "random_state: expected an int"),
    ],
)
def test_wrong_parameters(parameters, error, message):
    with pytest.raises(error, match=f"^{message}"):
        BPMLL(**parameters).fit(np.zeros((5, 2)), np.zeros((5, 1)))
