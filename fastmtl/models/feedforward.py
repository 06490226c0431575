"""What BP-MLL and MT-DNN share: standardised inputs, seeding, and training with early stopping."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from fastmtl.models.estimator import (
    FloatArray,
    Labels,
    MultiLabelEstimator,
    Rows,
    dense,
    need_count,
    need_positive,
)

Loss = Callable[[Tensor, Tensor], Tensor]
_ROWS_AT_ONCE = 4096
_CONSTANT = 1e-9
# The loss on fewer rows is lowest at an epoch that chance picks, often one of the first.
_FEWEST_HELD_OUT = 20


class FeedforwardEstimator(MultiLabelEstimator):
    """A multi-label estimator around a feed-forward network, `network_` after `fit`.

    A subclass has the attributes below as arguments of its constructor.
    """

    network_: nn.Module
    epochs_: int

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    validation_fraction: float
    patience: int
    standardize: bool
    random_state: int
    device: str

    def _check_training(self) -> None:
        need_count("epochs", self.epochs)
        need_count("batch_size", self.batch_size)
        need_positive("lr", self.lr)
        need_positive("weight_decay", self.weight_decay, zero=True)
        need_count("patience", self.patience)
        need_count("random_state", self.random_state, 0)
        if need_positive("validation_fraction", self.validation_fraction, zero=True) >= 1:
            raise ValueError(
                f"validation_fraction: expected a share in [0, 1), got {self.validation_fraction}"
            )

    @contextmanager
    def _seeded(self) -> Iterator[None]:
        """Random numbers from `random_state` inside the block, the caller's after it."""
        device = torch.device(self.device)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(self.random_state)
            yield

    def _fit_scale(self, *sources: Rows) -> None:
        """Mean and deviation of each feature, for the inputs of training and prediction alike."""
        features = sources[0].shape[1]
        self._mean: FloatArray = np.zeros(features)
        self._scale: FloatArray = np.ones(features)
        if self.standardize:
            self._mean, variance = _pooled_moments(sources)
            deviation = np.sqrt(variance)
            varies = deviation > _CONSTANT * np.abs(self._mean)
            self._scale = np.where(varies, deviation, 1.0)

    def _inputs(self, rows: Rows, index: Tensor | slice) -> Tensor:
        """Some rows as the network reads them, (n, D) float32 on the device."""
        chosen = dense(rows[index if isinstance(index, slice) else index.numpy()])
        scaled = ((chosen - self._mean) / self._scale).astype(np.float32)
        return torch.from_numpy(scaled).to(self.device)

    def _train(self, network: nn.Module, rows: Rows, labels: Labels, loss: Loss) -> None:
        """Minimise `loss(outputs (n, O), targets (n, T))` by Adam, and keep the best weights.

        `validation_fraction` of the rows are held out, and the best epoch is the one with the
        lowest loss on them; without such rows, or with too few to tell, it is the last.
        """
        targets = torch.from_numpy(labels.astype(np.float32)).to(self.device)
        order = torch.randperm(len(labels))
        # At least one row is left to train on.
        held = min(round(self.validation_fraction * len(labels)), len(labels) - 1)
        if held < _FEWEST_HELD_OUT:
            held = 0
        validation, training = order[:held].sort().values, order[held:]
        optimizer = torch.optim.Adam(
            network.parameters(), self.lr, weight_decay=self.weight_decay, fused=True
        )
        best, best_loss, waited = network.state_dict(), float("inf"), 0
        for epoch in range(1, self.epochs + 1):
            network.train()
            for index in training[torch.randperm(len(training))].split(self.batch_size):
                optimizer.zero_grad()
                loss(network(self._inputs(rows, index)), targets[index]).backward()
                optimizer.step()
            self.epochs_ = epoch
            if not held:
                continue
            with torch.no_grad():
                outputs = self._outputs(network, rows, validation)
                value = float(loss(outputs, targets[validation]))
            waited += 1
            if value < best_loss:
                best, best_loss, waited = copy.deepcopy(network.state_dict()), value, 0
            if waited >= self.patience:
                break
        if held:
            network.load_state_dict(best)
        self.network_ = network.eval()

    @torch.no_grad()
    def _outputs(self, network: nn.Module, rows: Rows, index: Tensor | None = None) -> Tensor:
        """What the network gives for all rows, or for some, (n, O) float32."""
        network.eval()
        if index is None:
            index = torch.arange(rows.shape[0])
        return torch.cat([network(self._inputs(rows, part)) for part in index.split(_ROWS_AT_ONCE)])


def probabilities(logits: Tensor) -> FloatArray:
    """sigmoid(logits) as a float64 array."""
    return np.asarray(logits.double().sigmoid().cpu(), np.float64)


def _pooled_moments(sources: Sequence[Rows]) -> tuple[FloatArray, FloatArray]:
    """Mean and population variance of each feature over all rows of the sources, (D,) each."""
    counts = np.array([rows.shape[0] for rows in sources])
    shares = (counts / counts.sum())[:, None]
    means, variances = map(np.stack, zip(*map(_moments, sources), strict=True))
    mean = (shares * means).sum(0)
    return mean, (shares * (variances + (means - mean) ** 2)).sum(0)


def _moments(rows: Rows) -> tuple[FloatArray, FloatArray]:
    """Mean and population variance of each feature, (D,) float64 each."""
    if isinstance(rows, np.ndarray):
        return rows.mean(0, dtype=np.float64), rows.var(0, dtype=np.float64)
    count = rows.shape[0]
    mean = np.asarray(rows.sum(0), dtype=np.float64).reshape(-1) / count
    square = np.asarray(rows.multiply(rows).sum(0), dtype=np.float64).reshape(-1) / count
    return mean, np.maximum(square - mean**2, 0.0)
