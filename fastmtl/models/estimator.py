"""What the multi-label estimators share: parameters, checks of X and y, tags for scikit-learn."""

from __future__ import annotations

import inspect
import warnings
from typing import Any, NoReturn, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastmtl._checks import need_number, need_size

FloatArray = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]
Self = TypeVar("Self", bound="MultiLabelEstimator")


class SparseRows(Protocol):
    """What is used of a scipy CSR matrix, so that scipy itself need not be installed."""

    shape: tuple[int, int]
    ndim: int
    dtype: Any
    data: Any

    def __getitem__(self, rows: Any) -> SparseRows: ...
    def astype(self, dtype: Any) -> SparseRows: ...
    def __matmul__(self, other: Any) -> Any: ...
    def multiply(self, other: Any) -> SparseRows: ...
    def sum(self, axis: int) -> Any: ...
    def toarray(self) -> FloatArray: ...


Rows = FloatArray | SparseRows


class MultiLabelEstimator:
    """A multi-label classifier by scikit-learn's conventions, which needs no scikit-learn.

    The arguments of the constructor are stored as they come and checked by `fit`, so that `clone`,
    pipelines and searches over parameters work. X is (N, D): an array or what numpy makes one of, a
    scipy sparse matrix, or a tensor. y is (N, T), 0 or 1. Results are numpy arrays. After a fit to
    a data frame whose columns are named, `feature_names_in_` (D,) holds the names, and other
    calls expect the same in the same order.

    A subclass implements `fit`, which ends with `_fitted`, and `predict_proba`.
    """

    n_features_in_: int
    feature_names_in_: NDArray[np.object_]
    n_labels_: int
    classes_: Labels

    def fit(self: Self, X: Any, y: Any) -> Self:
        """Learn from X (N, D) and y (N, T); return self."""
        raise NotImplementedError

    def predict_proba(self, X: Any) -> FloatArray:
        """Probability of each label, (N, T)."""
        raise NotImplementedError

    def predict(self, X: Any) -> Labels:
        """Decision on each label, (N, T) int64 of 0 and 1."""
        return (self.predict_proba(X) > 0.5).astype(np.int64)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Subset accuracy, as scikit-learn's classifiers: share of rows with all labels right,
        weighed by `sample_weight` (N,) where it is given."""
        predicted = self.predict(X)
        right = (predicted == checked_labels(y, len(predicted))).all(1)
        if sample_weight is None:
            return float(right.mean())
        return float(np.average(right, weights=_checked_weights(sample_weight, len(right))))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self: Self, **params: Any) -> Self:
        """Change constructor's arguments; ValueError for a name that is none."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self)).parameters
        changed = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if not _same(value, defaults[name].default)
        ]
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True, multi_output=True, single_output=False),
            transformer_tags=None,
            classifier_tags=ClassifierTags(multi_class=False, multi_label=True),
            regressor_tags=None,
            input_tags=InputTags(sparse=True),
        )

    def _checked(self, X: Any, y: Any) -> tuple[Rows, Labels]:
        """The arguments of a fit, and what they say about later calls."""
        names, rows = _column_names(X), checked_rows(X)
        labels = checked_labels(y, rows.shape[0])
        if names is not None:
            self.feature_names_in_ = names
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        return rows, labels

    def _fitted(self, rows: Rows, labels: Labels) -> None:
        self.n_features_in_ = rows.shape[1]
        self.n_labels_ = labels.shape[1]
        self.classes_ = np.arange(labels.shape[1])

    def _checked_new(self, X: Any) -> Rows:
        """The argument of a prediction."""
        if not hasattr(self, "n_features_in_"):
            _raise_not_fitted(f"{type(self).__name__}: expected a call of fit before, got none")
        self._check_names(_column_names(X))
        rows = checked_rows(X)
        if rows.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {rows.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input"
            )
        return rows

    def _check_names(self, names: NDArray[np.object_] | None) -> None:
        """Raise or warn where scikit-learn does, and with its words, by which users search."""
        fitted, name = getattr(self, "feature_names_in_", None), type(self).__name__
        if names is None and fitted is None:
            return
        if fitted is None:
            warnings.warn(
                f"X has feature names, but {name} was fitted without feature names", stacklevel=4
            )
        elif names is None:
            warnings.warn(
                f"X does not have valid feature names, but {name} was fitted with feature names",
                stacklevel=4,
            )
        elif list(names) != list(fitted):
            raise ValueError(_mismatch(list(names), list(fitted)))


def _column_names(X: Any) -> NDArray[np.object_] | None:
    """The names of a data frame's columns, where they are strings."""
    columns = getattr(X, "columns", None)
    if columns is None or not hasattr(X, "__array__"):
        return None
    names = list(columns)
    strings = [isinstance(name, str) for name in names]
    if any(strings) and not all(strings):
        kinds = sorted({type(name).__name__ for name in names})
        raise TypeError(
            "X: expected column names that are all strings. Feature names are only supported if "
            f"all input features have string names, but your input has {kinds} as feature name / "
            "column name types."
        )
    return np.array(names, object) if names and all(strings) else None


def _mismatch(names: list[str], fitted: list[str]) -> str:
    message = "The feature names should match those that were passed during fit.\n"
    unseen, missing = sorted({*names} - {*fitted}), sorted({*fitted} - {*names})
    for kind, found in (
        ("unseen at fit time", unseen),
        ("seen at fit time, yet now missing", missing),
    ):
        if found:
            message += f"Feature names {kind}:\n" + "".join(f"- {name}\n" for name in found)
    if not unseen and not missing:
        message += "Feature names must be in the same order as they were in fit.\n"
    return message


def _checked_weights(value: Any, num_samples: int) -> FloatArray:
    """Weights of samples (N,), at least 0 and not all 0."""
    weights = np.asarray(value, np.float64)
    if weights.shape != (num_samples,):
        raise ValueError(f"sample_weight: expected ({num_samples},), got shape {weights.shape}")
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise ValueError("sample_weight: expected numbers >= 0, not all 0, got others")
    return weights


def checked_rows(X: Any, name: str = "X") -> Rows:
    """X as a float array or CSR matrix (N, D), N and D at least 1, all finite."""
    if isinstance(X, Tensor):
        X = X.detach().cpu().to_dense()
        X = (X if X.dtype in (torch.float32, torch.float64) else X.double()).numpy()
    sparse = hasattr(X, "tocsr")
    rows: Rows = X.tocsr() if sparse else np.asarray(X)
    if rows.dtype.kind == "c":
        raise ValueError(
            f"{name}: expected real numbers, got {rows.dtype}. Complex data not supported"
        )
    if rows.dtype not in (np.float32, np.float64):
        try:
            rows = rows.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: expected numbers ({error})") from None
    if rows.ndim != 2:
        raise ValueError(
            f"{name}: expected a (N, D) array, got shape {rows.shape}. Reshape your data"
        )
    for size, kind in zip(rows.shape, ("sample", "feature"), strict=True):
        if size < 1:
            raise ValueError(
                f"{name}: 0 {kind}(s) (shape={rows.shape}) while a minimum of 1 is required."
            )
    values: Any = rows.data if sparse else rows
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity (inf)")
    return rows


def checked_labels(y: Any, num_samples: int, name: str = "y") -> Labels:
    """y as an int64 array (N, T) of 0 and 1, with T at least 1."""
    if y is None:
        raise ValueError(f"{name}: fit requires y to be passed, but the target y is None")
    if isinstance(y, Tensor):
        y = y.detach().cpu().to_dense().numpy()
    labels = y.toarray() if hasattr(y, "tocsr") else np.asarray(y)
    if labels.ndim != 2 or labels.shape[1] < 1:
        raise ValueError(f"{name}: expected (N, T) labels, got shape {labels.shape}")
    if len(labels) != num_samples:
        raise ValueError(f"{name}: expected {num_samples} rows as X has, got {len(labels)}")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"{name}: expected labels of 0 and 1, got others or missing ones")
    return labels.astype(np.int64)


def dense(rows: Rows) -> FloatArray:
    """Rows as an array (N, D)."""
    return rows if isinstance(rows, np.ndarray) else rows.toarray()


def need_positive(name: str, value: Any, *, zero: bool = False) -> float:
    """Return a number above 0 (with `zero`, of at least 0), else raise."""
    number = plain(value)
    need_number(name, number, above=None if zero else 0)
    return float(number)


def need_count(name: str, value: Any, minimum: int = 1) -> int:
    """Return an integer of at least `minimum`, else raise."""
    return need_size(name, plain(value), minimum)


def plain(value: Any) -> Any:
    """A scalar of numpy, which searches over parameters draw, as Python's own."""
    return value.item() if isinstance(value, np.generic) else value


def _same(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(np.all(value == default))


def _raise_not_fitted(message: str) -> NoReturn:
    """Raise scikit-learn's error where it is installed, which also is a ValueError."""
    try:
        from sklearn.exceptions import NotFittedError
    except ImportError:
        raise ValueError(message) from None
    raise NotFittedError(message)
