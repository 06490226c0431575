"""What users would reach for first, by scikit-learn and LightGBM, behind one call.

A fit takes the rows to learn from, the rows to choose on, a seed and one of its settings, and gives
a function from features (N, D) to scores (N, T) in [0, 1] that rank as the model does and decide at
1/2 as it does. A missing label (NaN) is left out of what is learnt of that label, as in training
by fastmtl: models that take no missing labels are then fitted one a label.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier

from fastmtl.models import BPMLL, MLKNN, MTDNN
from fastmtl.training import multilabel_metrics

try:
    from lightgbm import LGBMClassifier
except ImportError:
    LGBMClassifier = None

Array = NDArray[np.floating[Any]]
Predict = Callable[[Array], Array]
Fit = Callable[..., Predict]
Setting = dict[str, Any]

_TREES = 200
_EPOCHS, _PATIENCE = 100, 10


@dataclass(frozen=True)
class Rows:
    """Standardised features x (N, D) and labels y (N, T) of 0, 1 and NaN."""

    x: Array
    y: Array

    @property
    def complete(self) -> bool:
        """Whether no label is missing."""
        return not np.isnan(self.y).any()

    @property
    def targets(self) -> Array:
        """y, or (N,) of a single label, which scikit-learn wants so."""
        return self.y.ravel() if self.y.shape[1] == 1 else self.y

    def of(self, task: int) -> Rows:
        """The rows where a task's label is present, with that label alone."""
        present = ~np.isnan(self.y[:, task])
        return Rows(self.x[present], self.y[present][:, [task]])


@dataclass(frozen=True)
class Peer:
    """A row of the table: its name, the fit, and the settings to choose from."""

    row: str
    fit: Fit
    settings: tuple[Setting, ...]
    least_labels: int = 1


def per_label_where_missing(fit: Fit) -> Fit:
    """The fit, one model a label where any label is missing."""

    def fitted(train: Rows, val: Rows, seed: int, **setting: Any) -> Predict:
        if train.complete:
            return fit(train, val, seed, **setting)
        tasks = range(train.y.shape[1])
        models = [fit(train.of(task), val.of(task), seed, **setting) for task in tasks]
        return lambda x: np.hstack([model(x) for model in models])

    return fitted


def one_model_a_label(make: Callable[..., Any]) -> Fit:
    """The fit of a binary classifier for each label; a label of one value keeps that value."""

    def fit_label(rows: Rows, seed: int, setting: Setting) -> Predict:
        labels = rows.y.ravel()
        if labels.min() == labels.max():
            return lambda x: np.full(len(x), labels[0])
        model = make(seed, **setting).fit(rows.x, labels.astype(int))
        return lambda x: np.asarray(model.predict_proba(x))[:, 1]

    def fit(train: Rows, val: Rows, seed: int, **setting: Any) -> Predict:
        tasks = range(train.y.shape[1])
        models = [fit_label(train.of(task), seed, setting) for task in tasks]
        return lambda x: np.stack([model(x) for model in models], 1)

    return fit


@per_label_where_missing
def fit_ridge(train: Rows, val: Rows, seed: int, alpha: float) -> Predict:
    """Ridge regression on 0 and 1; the sigmoid keeps order and decision of what leaves [0, 1]."""
    model = Ridge(alpha=alpha).fit(train.x, train.y)
    return lambda x: 1 / (1 + np.exp(2 - 4 * model.predict(x).reshape(len(x), -1)))


def make_logistic(seed: int, C: float) -> Any:
    """Logistic regression with a squared penalty."""
    return LogisticRegression(C=C, max_iter=200, random_state=seed)


def fit_chain(train: Rows, val: Rows, seed: int, C: float) -> Predict:
    """A classifier chain (Read et al., 2009) of logistic regressions, in a random order.

    Each label's classifier also reads the labels before it: in training the true ones, and the
    chain's own decisions where they are missing or to be predicted.
    """
    order = np.random.default_rng(seed).permutation(train.y.shape[1])
    fit_label = one_model_a_label(make_logistic)
    models: list[Predict] = []
    known = train.x
    for task in order:
        labels = train.y[:, [task]]
        models.append(fit_label(Rows(known, labels), val, seed, C=C))
        if np.isnan(labels).any():
            labels = np.where(np.isnan(labels), models[-1](known) > 0.5, labels)
        known = np.hstack([known, labels.astype(known.dtype)])

    def predict(x: Array) -> Array:
        scores = np.empty((len(x), len(order)))
        for task, model in zip(order, models, strict=True):
            scores[:, [task]] = model(x)
            x = np.hstack([x, (scores[:, [task]] > 0.5).astype(x.dtype)])
        return scores

    return predict


@per_label_where_missing
def fit_extra_trees(train: Rows, val: Rows, seed: int, **setting: Any) -> Predict:
    """Extra trees for all labels; on 0 and 1 variance and Gini impurity part alike."""
    model = ExtraTreesRegressor(_TREES, random_state=seed, **setting)
    model.fit(train.x, train.targets)
    return lambda x: model.predict(x).reshape(len(x), -1)


def make_boosting(seed: int, **setting: Any) -> Any:
    """scikit-learn's histogram gradient boosting."""
    return HistGradientBoostingClassifier(early_stopping=False, random_state=seed, **setting)


def make_lightgbm(seed: int, **setting: Any) -> Any:
    """LightGBM's gradient boosting; a tree reads a fifth of the features, which costs a fifth."""
    return LGBMClassifier(
        colsample_bytree=0.2, n_jobs=1, verbose=-1, random_state=seed, deterministic=True, **setting
    )


@per_label_where_missing
def fit_perceptron(train: Rows, val: Rows, seed: int, hidden: int, alpha: float) -> Predict:
    """scikit-learn's perceptron; the best epoch by mAP on the rows to choose on."""

    def scores(network: Any, x: Array) -> Array:
        # One label is to scikit-learn two classes.
        return np.asarray(network.predict_proba(x))[:, -train.y.shape[1] :]

    network = MLPClassifier((hidden,), alpha=alpha, batch_size=64, random_state=seed)
    labels = train.targets.astype(int)
    best, best_map, waited = network, -1.0, 0
    for _ in range(_EPOCHS):
        network.partial_fit(train.x, labels, classes=np.arange(max(2, train.y.shape[1])))
        value = mean_average_precision(scores(network, val.x), val.y)
        waited += 1
        if value > best_map:
            best, best_map, waited = copy.deepcopy(network), value, 0
        if waited >= _PATIENCE:
            break
    return lambda x: scores(best, x)


@per_label_where_missing
def fit_mlknn(train: Rows, val: Rows, seed: int, k: int) -> Predict:
    """fastmtl's ML-kNN."""
    return MLKNN(k=k).fit(train.x, train.y).predict_proba


def fit_bpmll(train: Rows, val: Rows, seed: int, **setting: Any) -> Predict:
    """fastmtl's BP-MLL on the rows with all labels: it learns from pairs of them."""
    whole = ~np.isnan(train.y).any(1)
    model = BPMLL(random_state=seed, **setting)
    return model.fit(train.x[whole], train.y[whole]).predict_proba


@per_label_where_missing
def fit_mtdnn(train: Rows, val: Rows, seed: int, **setting: Any) -> Predict:
    """fastmtl's MT-DNN, which holds out of the training rows what it stops by."""
    return MTDNN(random_state=seed, **setting).fit(train.x, train.y).predict_proba


def mean_average_precision(scores: Array, y: Array) -> float:
    """fastmtl's mAP; 0 where no label has a positive."""
    metrics = multilabel_metrics(torch.as_tensor(scores), torch.as_tensor(y))
    return metrics["map"] or 0.0


def grid(**values: tuple[Any, ...]) -> tuple[Setting, ...]:
    """Every combination of some arguments' values.

    Examples:
        >>> grid(a=(1, 2), b=(3,))
        ({'a': 1, 'b': 3}, {'a': 2, 'b': 3})
    """
    settings: list[Setting] = [{}]
    for name, choices in values.items():
        settings = [{**setting, name: choice} for setting in settings for choice in choices]
    return tuple(settings)


_BOOSTING = {"learning_rate": (0.1, 0.05)}

# Those first in their settings are tried where the budget is smaller.
PEERS: dict[str, Peer] = {
    "ridge": Peer("ridge regression", fit_ridge, grid(alpha=(1000, 100, 10, 10000))),
    "logistic": Peer(
        "logistic regression", one_model_a_label(make_logistic), grid(C=(0.01, 0.001, 0.1, 1.0))
    ),
    "chain": Peer("classifier chain", fit_chain, grid(C=(0.01, 0.001, 0.1, 1.0))),
    "extra_trees": Peer(
        "extra trees",
        fit_extra_trees,
        grid(max_features=("sqrt", 0.2), min_samples_leaf=(1, 3)),
    ),
    "boosting": Peer(
        "histogram boosting",
        one_model_a_label(make_boosting),
        grid(**_BOOSTING, max_leaf_nodes=(15, 5), max_iter=(100,)),
    ),
    "lightgbm": Peer(
        "LightGBM",
        one_model_a_label(make_lightgbm),
        grid(**_BOOSTING, num_leaves=(15, 5), n_estimators=(100,)),
    ),
    "perceptron": Peer(
        "multi-layer perceptron", fit_perceptron, grid(hidden=(512, 128), alpha=(1e-3, 1.0))
    ),
    "mlknn": Peer("ML-kNN", fit_mlknn, grid(k=(10, 5, 15, 20))),
    "bpmll": Peer("BP-MLL", fit_bpmll, grid(hidden_size=(None, 128), lr=(1e-3, 3e-4)), 2),
    "mtdnn": Peer("MT-DNN", fit_mtdnn, grid(dropout=(0.0, 0.5), lr=(1e-3, 3e-4))),
}
if LGBMClassifier is None:
    del PEERS["lightgbm"]
