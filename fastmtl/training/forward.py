"""A trained model's answers in mini-batches, without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fastmtl.training.batches import Batch, Batches
from fastmtl.training.config import TrainConfig
from fastmtl.training.signals import StopRequest


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A context in which a model is in evaluation mode, and no gradients are kept."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


def in_batches(
    model: nn.Module,
    function: Callable[[Batch], Any],
    batches: Batches,
    rows: Tensor,  # (n,)
    batch_size: int,
    stop: StopRequest | None = None,
) -> list[Any]:
    """What `function` gives of each mini-batch of the samples `rows`.

    Raises Interrupted between two batches if `stop` was requested.
    """
    found = []
    with evaluating(model):
        for batch in batches(rows, batch_size):
            if stop is not None:
                stop.check()
            found.append(function(batch))
    return found


def evaluation_batch(config: TrainConfig) -> int:
    """Samples at a time where no gradients are kept: more than in training, and in step with it."""
    return 4 * config.batch_size


def compute_logits(
    model: nn.Module,
    batches: Batches,
    rows: Tensor,  # (n,)
    batch_size: int,
    stop: StopRequest | None = None,
) -> Tensor:
    """Logits of at least one sample, `rows`, in evaluation mode, on the device of `batches`.

    Raises Interrupted between two batches if `stop` was requested.
    """
    return torch.cat(
        in_batches(model, lambda batch: batch.forward(model), batches, rows, batch_size, stop)
    )
