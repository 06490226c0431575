"""The dtype in which a run multiplies, and the optimizer steps that it takes."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Precision:
    """Forward and backward passes under autocast in a half dtype, weights and steps in float32.

    float16 reaches down to 6e-8 only, so its losses are scaled up before the backward pass, and the
    gradients down before the step; a step whose gradients overflow is left out, and the scale
    halved (Micikevicius et al. 2018, section 3.2).

    Args:
        name: "float32", "bfloat16" or "float16".
        device: where the run computes.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self._device, self._dtype = device, PRECISIONS[name]
        self.scaler = torch.amp.GradScaler(device.type) if name == "float16" else None

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        return torch.autocast(self._device.type, self._dtype, enabled=self._dtype is not None)

    def step(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: Iterable[nn.Parameter],
        max_norm: float | None,
    ) -> None:
        """An optimizer step, with the gradients of `parameters` clipped to `max_norm` before it."""
        if max_norm is not None:
            if self.scaler is not None:
                self.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(parameters, max_norm)
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()
