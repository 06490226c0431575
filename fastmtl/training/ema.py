"""A moving average of a model's weights, which is measured and kept in their place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """The exponential moving average of a model's weights over its steps, after Polyak and Juditsky
    (1992).

        e <- d e + (1 - d) w,    d = min(decay, (1 + s) / (10 + s)) at step s (from 1)

    The smaller d of the first steps forgets the initial weights. Buffers that are no floating-point
    numbers are the model's own.

    Args:
        model: the model, as it is before the first step.
        decay: in [0, 1).

    Examples:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(model.weight)
        >>> ema = Ema(model, 0.9)
        >>> _ = nn.init.ones_(model.weight)
        >>> ema.update(1)
        >>> round(ema.tensors["weight"].item(), 4)
        0.8182
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._model = model
        self.tensors = {k: value.detach().clone() for k, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step `step` (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in self._model.state_dict().items():
            if value.is_floating_point():
                self.tensors[name].lerp_(value, 1 - decay)
            else:
                self.tensors[name].copy_(value)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averages inside the block, and its own weights after it."""
        own = {name: value.clone() for name, value in self._model.state_dict().items()}
        self._model.load_state_dict(self.tensors)
        try:
            yield
        finally:
            self._model.load_state_dict(own)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go back to averages of the same names and shapes."""
        for name, value in tensors.items():
            self.tensors[name].copy_(value)
