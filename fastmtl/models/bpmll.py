"""BP-MLL: a neural network trained to rank a sample's labels above the others."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastmtl.models.estimator import FloatArray, Labels, need_count
from fastmtl.models.feedforward import FeedforwardEstimator, probabilities


class BPMLL(FeedforwardEstimator):
    """Back-propagation for multi-label learning (Zhang and Zhou, IEEE TKDE 18(10), 2006).

    One hidden layer and an output c_l in (-1, 1) for each label, both with tanh. With Y the labels
    of a sample and Z the others, the error of the sample is

        E = 1 / (|Y| |Z|) sum over (k, l) in Y x Z of exp(-(c_k - c_l))
          = mean over Y of exp(-c_k)  *  mean over Z of exp(c_l),

    0 where Y or Z is empty: from a single label nothing is learnt, of which `fit` warns. A label
    is decided if c_l > t(x), with t(x) = w^T c(x) + b fitted by least squares to the best threshold
    of each training sample: the t with the fewest labels of Y at or below it and of Z above; the
    middle, where a whole interval is best.

    Where the paper leaves room: Adam with mini-batches instead of single gradient steps, and
    `validation_fraction` of the samples held out to end training after `patience` epochs without a
    lower error (0 trains for `epochs`). `predict_proba` is sigmoid(2 (c_l - t(x))), a score that is
    above 0.5 exactly where the label is decided, not a calibrated probability.

    Args:
        hidden_size: units of the hidden layer, None for 20% of the features, as in the paper.
        epochs: at most.
        batch_size: samples of a step.
        lr: Adam's learning rate.
        weight_decay: Adam's.
        validation_fraction: share of the samples held out to end the training; none are where it
            comes to fewer than 20, too few to tell when.
        patience: epochs without a lower error on them after which it ends.
        standardize: shift and scale features to mean 0 and variance 1 first.
        random_state: seed of weights, order and held-out samples.
        device: where the network is.

    Raises:
        TypeError or ValueError: in `fit`, for arguments out of range, for X that is no finite
            (N, D), or y that is no (N, T) of 0 and 1.

    After `fit`: `network_`, `threshold_` (T + 1,) of w and b, `epochs_` trained.

    Examples:
        >>> import numpy as np
        >>> from fastmtl.models import BPMLL
        >>> X = np.linspace(-1, 1, 40)[:, None]
        >>> y = np.hstack([X > 0, X <= 0])
        >>> BPMLL(hidden_size=4, lr=0.05).fit(X, y).predict([[-0.9], [0.9]])
        array([[0, 1],
               [1, 0]])
    """

    threshold_: Tensor

    def __init__(
        self,
        hidden_size: int | None = None,
        *,
        epochs: int = 100,
        batch_size: int = 20,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        validation_fraction: float = 0.1,
        patience: int = 10,
        standardize: bool = True,
        random_state: int = 0,
        device: str = "cpu",
    ) -> None:
        self.hidden_size = hidden_size
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.standardize = standardize
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any) -> BPMLL:
        """Learn from X (N, D) and y (N, T); return self."""
        self._check_training()
        if self.hidden_size is not None:
            need_count("hidden_size", self.hidden_size)
        rows, labels = self._checked(X, y)
        if labels.shape[1] < 2:
            warnings.warn(
                "y: expected at least 2 labels, of which BP-MLL ranks pairs: from 1 it learns "
                "nothing",
                stacklevel=2,
            )
        self._fit_scale(rows)
        features, num_labels = rows.shape[1], labels.shape[1]
        hidden = max(1, round(0.2 * features)) if self.hidden_size is None else self.hidden_size
        with self._seeded():
            network = nn.Sequential(
                nn.Linear(features, hidden), nn.Tanh(), nn.Linear(hidden, num_labels), nn.Tanh()
            ).to(self.device)
            self._train(network, rows, labels, pairwise_loss)
        outputs = self._outputs(network, rows).double()
        targets = torch.from_numpy(labels).to(outputs)
        # gelsd also solves it where labels are never or always there and columns depend.
        solution = torch.linalg.lstsq(
            _with_one(outputs).cpu(), best_thresholds(outputs, targets).cpu(), driver="gelsd"
        )
        self.threshold_ = solution.solution.to(outputs.device)
        self._fitted(rows, labels)
        return self

    def predict_proba(self, X: Any) -> FloatArray:
        """sigmoid(2 (c_l - t(x))) of each label, (N, T) float64."""
        return probabilities(2 * self._margins(X))

    def predict(self, X: Any) -> Labels:
        """1 where c_l > t(x), (N, T) int64."""
        return np.asarray((self._margins(X) > 0).cpu(), np.int64)

    def _margins(self, X: Any) -> Tensor:
        """c_l - t(x), (N, T) float64."""
        rows = self._checked_new(X)
        outputs = self._outputs(self.network_, rows).double()
        return outputs - (_with_one(outputs) @ self.threshold_).unsqueeze(1)


def pairwise_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean over the samples of BP-MLL's error, from outputs and targets (N, T).

    The double sum over pairs factorises, so it costs 2 T exponentials a sample.

    Examples:
        >>> import torch
        >>> pairwise_loss(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]]))
        tensor(1.)
    """
    others = 1 - targets
    pairs = targets.sum(1) * others.sum(1)
    errors = ((-outputs).exp() * targets).sum(1) * (outputs.exp() * others).sum(1)
    return (errors / pairs.clamp(min=1)).mean()


def best_thresholds(outputs: Tensor, targets: Tensor) -> Tensor:
    """The threshold of each sample (N,) that parts its labels best from the others.

    It minimises |{k in Y: c_k <= t}| + |{l not in Y: c_l > t}| over t in [-1, 1]; where the
    minimum is an interval, the middle of the lowest such interval.

    Examples:
        >>> import torch
        >>> best_thresholds(torch.tensor([[0.5, -0.5, -0.9]]), torch.tensor([[1.0, 0.0, 0.0]]))
        tensor([0.])
    """
    values, order = outputs.sort(1)
    own = targets.gather(1, order)
    end = values.new_ones(len(values), 1)
    # errors[:, j]: the j lowest outputs are at or below the threshold.
    missed = torch.cat([torch.zeros_like(end), own.cumsum(1)], 1)
    wrong = torch.cat([torch.zeros_like(end), (1 - own).cumsum(1)], 1)
    errors = missed + wrong[:, -1:] - wrong
    low, high = torch.cat([-end, values], 1), torch.cat([values, end], 1)
    # No threshold lies between equal outputs.
    errors = errors.masked_fill(low == high, torch.inf)
    best = errors.argmin(1, keepdim=True)
    return ((low.gather(1, best) + high.gather(1, best)) / 2).squeeze(1)


def _with_one(outputs: Tensor) -> Tensor:
    return torch.cat([outputs, torch.ones_like(outputs[:, :1])], 1)
