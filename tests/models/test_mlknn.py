from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fastmtl.data import load
from fastmtl.models import MLKNN
from fastmtl.models.neighbors import NeighbourSearch, _smallest


def plain_neighbours(points, query, k, skip=None):
    distances = [(float(((p - query) ** 2).sum()), i) for i, p in enumerate(points) if i != skip]
    return [i for _, i in sorted(distances)[:k]]


def plain_mlknn(X, y, new, k, s):
    """Posterior probabilities, written out sample by sample after the paper's pseudocode."""
    m, labels = y.shape
    posterior = np.zeros((len(new), labels))
    near = [plain_neighbours(X, X[i], k, skip=i) for i in range(m)]
    near_new = [plain_neighbours(X, row, k) for row in new]
    for label in range(labels):
        prior = (s + sum(y[:, label])) / (2 * s + m)
        c = np.zeros((2, k + 1))
        for i in range(m):
            delta = sum(y[a, label] for a in near[i])
            c[y[i, label], delta] += 1
        for i in range(len(new)):
            j = sum(y[a, label] for a in near_new[i])
            given = [(s + c[b, j]) / (s * (k + 1) + sum(c[b])) for b in (0, 1)]
            joint = [(1 - prior) * given[0], prior * given[1]]
            posterior[i, label] = joint[1] / sum(joint)
    return posterior


def problem(rows=60, features=4, labels=3, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, features))
    y = (X @ rng.normal(size=(features, labels)) + rng.normal(size=(rows, labels)) > 0).astype(int)
    return X, y


@pytest.mark.parametrize(("k", "s"), [(1, 1.0), (5, 1.0), (10, 0.5)])
def test_equals_the_papers_pseudocode(k, s):
    X, y = problem()
    new = problem(seed=1)[0]
    expected = plain_mlknn(X, y, new, k, s)
    model = MLKNN(k=k, s=s).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(new), expected, rtol=1e-12)
    np.testing.assert_array_equal(model.predict(new), expected >= 0.5)


@pytest.mark.parametrize(("name", "published"), [("scene", 0.0989), ("yeast", 0.1980)])
def test_published_hamming_loss(shared_data, name, published):
    data = load(shared_data / "mulan" / f"{name}-train.arff")
    test = data.indices("test")
    train = (data.split != 2).nonzero().flatten()
    model = MLKNN().fit(data.x[train], data.y[train])
    loss = np.mean(model.predict(data.x[test]) != data.y[test].numpy())
    assert loss == pytest.approx(published, abs=0.0005)


@pytest.mark.parametrize("group", [64, 2])
@pytest.mark.parametrize("levels", [2, 3, 1000])
def test_neighbours_are_exact_and_ties_go_by_index(levels, group, monkeypatch):
    monkeypatch.setattr("fastmtl.models.neighbors._GROUP", group)
    rng = np.random.default_rng(levels)
    points = rng.integers(0, levels, (300, 3)) / 7 + 100.0
    search = NeighbourSearch(points)
    expected = [plain_neighbours(points, p, 8, skip=i) for i, p in enumerate(points)]
    np.testing.assert_array_equal(search(points, 8, exclude_self=True), expected)
    queries = points[:40] + 0.01
    expected = [plain_neighbours(points, q, 8) for q in queries]
    np.testing.assert_array_equal(search(queries, 8), expected)


def test_differences_below_float32_resolution_are_seen():
    points = np.full((200, 2), 1e3)
    points[:, 0] += np.random.default_rng(0).permutation(200) * 1e-9
    query = np.array([[1e3, 1e3]])
    np.testing.assert_array_equal(
        NeighbourSearch(points)(query, 5)[0], np.argsort(points[:, 0])[:5]
    )


@pytest.mark.parametrize(("size", "levels"), [(7000, 0), (6656, 40), (6719, 0), (300, 3)])
def test_the_smallest_by_groups_are_the_smallest(size, levels):
    values = torch.randint(levels, (5, size)).float() if levels else torch.randn(5, size)
    best, columns = _smallest(values, 26)
    assert best.equal(values.sort(1).values[:, :26])
    assert values.gather(1, columns).equal(best)
    assert all(row.unique().numel() == 26 for row in columns)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1e18, 1e25, 1e100])
def test_numbers_beyond_float32(scale):
    points = np.random.default_rng(0).normal(size=(60, 3)) * scale
    expected = [plain_neighbours(points, p, 4, skip=i) for i, p in enumerate(points)]
    np.testing.assert_array_equal(NeighbourSearch(points)(points, 4, exclude_self=True), expected)


def test_identical_points():
    X, y = np.ones((50, 3)), np.tile([[0, 1]], (50, 1))
    np.testing.assert_array_equal(NeighbourSearch(X)(X[:1], 4), [[0, 1, 2, 3]])
    np.testing.assert_array_equal(MLKNN(k=4).fit(X, y).predict(X[:2]), [[0, 1], [0, 1]])


def test_chunks_change_nothing(monkeypatch):
    X, y = problem(rows=100)
    expected = MLKNN().fit(X, y).predict_proba(X)
    monkeypatch.setattr("fastmtl.models.neighbors._CHUNK_BYTES", 4000)
    np.testing.assert_array_equal(MLKNN().fit(X, y).predict_proba(X), expected)


def test_a_shift_and_the_order_of_features_change_nothing():
    X, y = problem()
    expected = MLKNN().fit(X, y).predict_proba(X)
    shifted = X[:, ::-1] + 5.0
    np.testing.assert_array_equal(MLKNN().fit(shifted, y).predict_proba(shifted), expected)


def test_every_kind_of_input():
    sparse = pytest.importorskip("scipy.sparse")
    X, y = problem()
    X[X < 0.5] = 0
    expected = MLKNN().fit(X, y).predict_proba(X)
    kinds: list[Any] = [X.tolist(), torch.from_numpy(X), sparse.csr_matrix(X), sparse.coo_array(X)]
    for given in kinds:
        model = MLKNN().fit(given, sparse.csr_matrix(y))
        np.testing.assert_array_equal(model.predict_proba(given), expected)
    np.testing.assert_array_equal(
        MLKNN().fit(X, torch.from_numpy(y).bool()).predict_proba(X), expected
    )


def test_without_smoothing_what_was_never_seen_leaves_the_prior():
    X = np.arange(8.0)[:, None]
    y = np.zeros((8, 2), int)
    y[:, 1] = 1
    model = MLKNN(k=2, s=0.0).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), y)
    np.testing.assert_array_equal(model.predict(X), y)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"k": 0}, ValueError, "k: expected at least 1, got 0"),
        ({"k": 1.5}, TypeError, "k: expected an int, got 1.5"),
        ({"k": 60}, ValueError, "k: expected less than n_samples = 60, got 60"),
        ({"s": -1.0}, ValueError, "s: expected a finite number >= 0"),
        ({"s": "1"}, TypeError, "s: expected a number"),
    ],
)
def test_wrong_parameters(parameters, error, message):
    with pytest.raises(error, match=f"^{message}"):
        MLKNN(**parameters).fit(*problem())
