"""MT-DNN: a deep sigmoid network with a pair of output nodes for each label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastmtl._checks import need_probability
from fastmtl.models.estimator import (
    FloatArray,
    Labels,
    Rows,
    checked_rows,
    need_count,
    need_positive,
    plain,
)
from fastmtl.models.feedforward import FeedforwardEstimator, probabilities
from fastmtl.models.rbm import RBM

# Hinton's practical guide (2010): a tenth of the rate for real visible units, momentum raised once
# the weights have left their start, and a slight weight decay.
_GAUSSIAN_RATE = 0.1
_MOMENTUM, _LATER_MOMENTUM, _FIRST_EPOCHS = 0.5, 0.9, 5
_DECAY = 2e-4


class MTDNN(FeedforwardEstimator):
    """Multi-task deep neural network for multi-label learning (Huang et al., ICIP 2013).

    Sigmoid layers shared by all labels, then two nodes for each label, whose softmax is   (eq. 7)

        P(y_l = 1 | x) = exp(o_l1) / (exp(o_l0) + exp(o_l1));

    `predict` takes the label where its node is the larger of the two. `fit` pretrains the layers
    greedily without the labels, the first as a Gaussian RBM and the others as binary RBMs on the
    hidden probabilities of the layer below, each by CD-1; then all weights are tuned by Adam on the
    cross-entropy summed over the labels.

    Chosen where the paper leaves room: the learning rates and Adam; mini-batches;
    `validation_fraction` of the samples held out to end the tuning after `patience` epochs without
    a lower error (0 tunes for `epochs`); optional dropout of the hidden units.

    Args:
        hidden_sizes: units of the sigmoid layers.
        pretrain_epochs: of each RBM; 0 leaves the layers at their random start.
        pretrain_lr: of each RBM; the Gaussian one takes a tenth of it.
        epochs: at most.
        batch_size: samples of a step.
        lr: Adam's learning rate.
        weight_decay: Adam's.
        dropout: probability of zeroing a hidden unit.
        validation_fraction: share of the samples held out to end the training; none are where it
            comes to fewer than 20, too few to tell when.
        patience: epochs without a lower error on them after which it ends.
        standardize: shift and scale features to mean 0 and variance 1 first, as the Gaussian RBM
            needs.
        random_state: seed of everything random.
        device: where the network is.

    Raises:
        TypeError or ValueError: in `fit`, for arguments out of range, for X that is no finite
            (N, D), or y that is no (N, T) of 0 and 1.

    After `fit`: `network_`, whose outputs are (N, 2 T), `rbms_`, `epochs_` tuned.

    Examples:
        >>> import numpy as np
        >>> from fastmtl.models import MTDNN
        >>> X = np.linspace(-1, 1, 60)[:, None]
        >>> y = np.hstack([X > 0, X <= 0])
        >>> model = MTDNN(hidden_sizes=(8,), pretrain_epochs=5, lr=0.05).fit(X, y)
        >>> model.predict([[-0.9], [0.9]])
        array([[0, 1],
               [1, 0]])
    """

    rbms_: list[RBM]

    def __init__(
        self,
        hidden_sizes: Sequence[int] = (256, 256),
        *,
        pretrain_epochs: int = 30,
        pretrain_lr: float = 0.05,
        epochs: int = 200,
        batch_size: int = 20,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        dropout: float = 0.0,
        validation_fraction: float = 0.1,
        patience: int = 10,
        standardize: bool = True,
        random_state: int = 0,
        device: str = "cpu",
    ) -> None:
        self.hidden_sizes = hidden_sizes
        self.pretrain_epochs = pretrain_epochs
        self.pretrain_lr = pretrain_lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.dropout = dropout
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.standardize = standardize
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any, unlabelled: Any = None) -> MTDNN:
        """Learn from X (N, D) and y (N, T); return self.

        `unlabelled` (N', D) are more samples for the pretraining, which always reads X, and for
        the mean and variance of `standardize`.
        """
        self._check_options()
        rows, labels = self._checked(X, y)
        more = [] if unlabelled is None else [checked_rows(unlabelled, "unlabelled")]
        for extra in more:
            if extra.shape[1] != rows.shape[1]:
                raise ValueError(
                    f"unlabelled: expected {rows.shape[1]} features as X has, got {extra.shape[1]}"
                )
        self._fit_scale(rows, *more)
        with self._seeded():
            self.rbms_ = self._pretrain([rows, *more])
            network = self._network(labels.shape[1])
            self._train(network, rows, labels, _summed_error)
        self._fitted(rows, labels)
        return self

    def predict_proba(self, X: Any) -> FloatArray:
        """P(y_l = 1 | x) of equation 7, (N, T) float64."""
        return probabilities(self._differences(X))

    def predict(self, X: Any) -> Labels:
        """1 where o_l1 > o_l0, (N, T) int64."""
        return np.asarray((self._differences(X) > 0).cpu(), np.int64)

    def _differences(self, X: Any) -> Tensor:
        rows = self._checked_new(X)
        return _differences(self._outputs(self.network_, rows))

    def _check_options(self) -> None:
        self._check_training()
        if isinstance(self.hidden_sizes, str) or not isinstance(self.hidden_sizes, Sequence):
            raise TypeError(f"hidden_sizes: expected a list of sizes, got {self.hidden_sizes!r}")
        if not self.hidden_sizes:
            raise ValueError("hidden_sizes: expected at least one size, got none")
        for size in self.hidden_sizes:
            need_count("hidden_sizes", size)
        need_count("pretrain_epochs", self.pretrain_epochs, 0)
        need_positive("pretrain_lr", self.pretrain_lr)
        need_probability("dropout", plain(self.dropout))

    def _pretrain(self, sources: list[Rows]) -> list[RBM]:
        rbms: list[RBM] = []
        visible = sources[0].shape[1]
        for hidden in self.hidden_sizes:
            gaussian = not rbms
            rbm = RBM(visible, hidden, gaussian=gaussian, device=self.device)
            lr = self.pretrain_lr * (_GAUSSIAN_RATE if gaussian else 1.0)
            for epoch in range(self.pretrain_epochs):
                momentum = _MOMENTUM if epoch < _FIRST_EPOCHS else _LATER_MOMENTUM
                for v in self._shuffled(sources, rbms):
                    rbm.step(v, lr, momentum, _DECAY)
            rbms.append(rbm)
            visible = hidden
        return rbms

    def _shuffled(self, sources: list[Rows], below: list[RBM]) -> Iterator[Tensor]:
        """Mini-batches of all sources, seen through the machines trained so far."""
        batches = [
            (rows, index)
            for rows in sources
            for index in torch.randperm(rows.shape[0]).split(self.batch_size)
        ]
        for place in torch.randperm(len(batches)).tolist():
            rows, index = batches[place]
            v = self._inputs(rows, index)
            for rbm in below:
                v = rbm.hidden(v)
            yield v

    def _network(self, num_labels: int) -> nn.Module:
        """The network with the pretrained layers and a random last one."""
        layers: list[nn.Module] = []
        for rbm in self.rbms_:
            linear = nn.Linear(rbm.weight.shape[1], rbm.weight.shape[0])
            if self.pretrain_epochs:
                linear.weight.data.copy_(rbm.weight)
                linear.bias.data.copy_(rbm.hidden_bias)
            layers += [linear, nn.Sigmoid(), nn.Dropout(self.dropout)]
        layers.append(nn.Linear(self.hidden_sizes[-1], 2 * num_labels))
        return nn.Sequential(*layers).to(self.device)


def _differences(outputs: Tensor) -> Tensor:
    """o_l1 - o_l0 of the pairs (N, 2 T), (N, T): the logit of equation 7."""
    return outputs[:, 1::2] - outputs[:, 0::2]


def _summed_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy summed over the labels, mean over the samples."""
    error = F.binary_cross_entropy_with_logits(_differences(outputs), targets, reduction="sum")
    return error / len(targets)
