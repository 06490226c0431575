"""What holds for every estimator."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from fastmtl.models import BPMLL, MLKNN, MTDNN

SMALL = {
    "mlknn": MLKNN(k=3),
    "bpmll": BPMLL(hidden_size=8, epochs=4),
    "mtdnn": MTDNN(hidden_sizes=(8, 6), pretrain_epochs=2, epochs=4),
}
each = pytest.mark.parametrize("estimator", SMALL.values(), ids=list(SMALL))


def problem(rows=50, features=6, labels=4):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, features))
    y = (X[:, :labels] + 0.3 * rng.normal(size=(rows, labels)) > 0.4).astype(int)
    return X, y


def fresh(estimator):
    return type(estimator)(**estimator.get_params())


@each
def test_results_and_fitted_attributes(estimator):
    X, y = problem()
    model = fresh(estimator)
    assert model.fit(X, y) is model
    assert (model.n_features_in_, model.n_labels_) == (6, 4)
    np.testing.assert_array_equal(model.classes_, range(4))
    probabilities, decisions = model.predict_proba(X), model.predict(X)
    assert probabilities.shape == decisions.shape == (50, 4)
    assert (probabilities >= 0).all()
    assert (probabilities <= 1).all()
    assert set(np.unique(decisions)) <= {0, 1}
    assert 0 <= model.score(X, y) <= 1


@each
def test_a_fit_is_repeatable_and_leaves_the_random_state_alone(estimator):
    X, y = problem()
    state = torch.random.get_rng_state()
    first = fresh(estimator).fit(X, y).predict_proba(X)
    assert torch.random.get_rng_state().equal(state)
    torch.rand(3)
    np.testing.assert_array_equal(fresh(estimator).fit(X, y).predict_proba(X), first)


@each
def test_copies_and_pickles_predict_the_same(estimator):
    X, y = problem()
    model = fresh(estimator).fit(X, y)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(twin.predict_proba(X), model.predict_proba(X))


@each
def test_sparse_and_dense_input_agree(estimator):
    sparse = pytest.importorskip("scipy.sparse")
    X, y = problem()
    X[X < 0] = 0
    dense = fresh(estimator).fit(X, y).predict_proba(X)
    found = fresh(estimator).fit(sparse.csr_matrix(X), sparse.csr_matrix(y))
    np.testing.assert_allclose(found.predict_proba(sparse.csr_matrix(X)), dense, atol=1e-5)
    np.testing.assert_allclose(found.predict_proba(torch.from_numpy(X)), dense, atol=1e-5)


@each
def test_parameters(estimator):
    model = fresh(estimator)
    name = next(iter(model.get_params()))
    assert model.set_params(**{name: 4}) is model
    assert model.get_params()[name] == 4
    assert f"{name}=4" in repr(model)
    assert repr(type(model)()) == f"{type(model).__name__}()"
    with pytest.raises(ValueError, match=r"^absent: expected one of"):
        model.set_params(absent=1)


@each
@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.zeros(5), np.zeros((5, 1)), "X: expected a \\(N, D\\) array, got shape \\(5,\\)"),
        (np.zeros((5, 2, 2)), np.zeros((5, 1)), "X: expected a \\(N, D\\) array"),
        (np.zeros((0, 2)), np.zeros((0, 1)), "X: 0 sample"),
        (np.zeros((5, 0)), np.zeros((5, 1)), "X: 0 feature"),
        (np.full((5, 2), np.nan), np.zeros((5, 1)), "X: expected finite numbers"),
        (np.zeros((5, 2), complex), np.zeros((5, 1)), "X: expected real numbers"),
        (np.zeros((5, 2)), np.zeros(5), "y: expected \\(N, T\\) labels, got shape \\(5,\\)"),
        (np.zeros((5, 2)), np.zeros((5, 0)), "y: expected \\(N, T\\) labels"),
        (np.zeros((5, 2)), np.zeros((4, 1)), "y: expected 5 rows as X has, got 4"),
        (np.zeros((5, 2)), np.full((5, 1), 2), "y: expected labels of 0 and 1"),
        (np.zeros((5, 2)), np.full((5, 1), np.nan), "y: expected labels of 0 and 1"),
        (np.zeros((5, 2)), None, "y: fit requires y"),
    ],
)
def test_wrong_data(estimator, X, y, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        fresh(estimator).fit(X, y)


class Frame:
    """What is read of a data frame, without pandas."""

    def __init__(self, values, columns):
        self.values, self.columns = values, columns

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


@each
def test_names_of_features(estimator):
    X, y = problem()
    names = [f"f{i}" for i in range(6)]
    model = fresh(estimator).fit(Frame(X, names), y)
    assert model.feature_names_in_.tolist() == names
    assert model.feature_names_in_.dtype == object
    plain = fresh(estimator).fit(X, y)
    assert not hasattr(plain, "feature_names_in_")
    expected = plain.predict_proba(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(model.predict_proba(Frame(X, names)), expected)
        plain.predict_proba(X)
        # Columns that are numbered have no names.
        plain.predict_proba(Frame(X, range(6)))
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        model.predict(X)
    with pytest.warns(UserWarning, match="X has feature names, but .* was fitted without"):
        plain.predict(Frame(X, names))
    with pytest.raises(ValueError, match="must be in the same order as they were in fit"):
        model.predict(Frame(X, names[::-1]))
    with pytest.raises(ValueError, match=r"unseen at fit time:\n- other\n.*missing:\n- f5\n"):
        model.predict(Frame(X, [*names[:5], "other"]))
    with pytest.raises(TypeError, match="X: expected column names that are all strings"):
        fresh(estimator).fit(Frame(X, [*names[:5], 5]), y)
    assert not hasattr(model.fit(X, y), "feature_names_in_")


@each
def test_score_weighs_samples(estimator):
    X, y = problem()
    model = fresh(estimator).fit(X, y)
    right = (model.predict(X) == y).all(1)
    weights = np.arange(50.0)
    assert model.score(X, y) == pytest.approx(right.mean())
    assert model.score(X, y, sample_weight=np.ones(50)) == pytest.approx(right.mean())
    expected = (weights * right).sum() / weights.sum()
    assert model.score(X, y, sample_weight=weights) == pytest.approx(expected)
    for wrong in (np.ones(49), -np.ones(50), np.zeros(50), np.full(50, np.nan)):
        with pytest.raises(ValueError, match=r"^sample_weight: expected"):
            model.score(X, y, sample_weight=wrong)


@each
def test_wrong_calls(estimator):
    X, y = problem()
    with pytest.raises(ValueError, match="expected a call of fit before"):
        fresh(estimator).predict(X)
    model = fresh(estimator).fit(X, y)
    with pytest.raises(ValueError, match=r"X has 5 features, but .* is expecting 6"):
        model.predict(X[:, :5])


@each
def test_scikit_learn_clones_and_searches(estimator):
    pytest.importorskip("sklearn")
    from sklearn.base import clone, is_classifier
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X, y = problem()
    assert is_classifier(estimator)
    assert clone(estimator).get_params() == estimator.get_params()
    scores = cross_val_score(make_pipeline(StandardScaler(), clone(estimator)), X, y, cv=3)
    assert np.isfinite(scores).all()
    auc = cross_val_score(clone(estimator), X, y, cv=3, scoring="roc_auc")
    assert np.isfinite(auc).all()


# Checks that give labels of one dimension or of several classes, whatever the tags say.
SINGLE_LABEL = {
    "check_classifier_data_not_an_array",
    "check_classifier_not_supporting_multiclass",
    "check_classifiers_classes",
    "check_classifiers_one_label",
    "check_classifiers_regression_target",
    "check_classifiers_train",
    "check_estimator_sparse_array",
    "check_estimator_sparse_matrix",
    "check_estimators_dtypes",
    "check_fit2d_1feature",
}


@each
@pytest.mark.filterwarnings("ignore:Estimator .* does not inherit")
@pytest.mark.filterwarnings("ignore:y. expected at least 2 labels")
def test_scikit_learn_checks(estimator):
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    results = checks.check_estimator(fresh(estimator), on_fail=None, on_skip=None)
    status = {r["check_name"]: r["status"] for r in results}
    assert list(status.values()).count("passed") > 35
    assert {name for name, value in status.items() if value == "failed"} <= SINGLE_LABEL


def test_scikit_learn_is_not_needed():
    code = (
        "import sys, fastmtl; assert not {'sklearn', 'scipy'} & set(sys.modules)\n"
        "sys.modules['sklearn'] = None; fastmtl.models.MLKNN"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
