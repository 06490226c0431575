"""What ends a run whose numbers are no longer numbers."""

from __future__ import annotations

import math

from torch import Tensor

from fastmtl.data.tasks import Tasks
from fastmtl.training.history import mean_present

_REMEDY = "try a lower learning rate (lr) or clip_grad_norm"


class DivergedError(RuntimeError):
    """The loss is no longer a finite number."""


def check_losses(epoch: int, name: str, losses: list[float | None]) -> None:
    """Raise DivergedError unless the mean of the losses (T,) of an epoch is finite."""
    value = mean_present(losses)
    if not math.isfinite(value):
        raise DivergedError(f"epoch {epoch}: the {name} loss is {value}; {_REMEDY}")


def probabilities(tasks: Tasks, logits: Tensor) -> Tensor:
    """`tasks.probabilities` in float64 on the CPU. Raises DivergedError for NaN."""
    if bool(logits.isnan().any()):
        raise DivergedError(f"the model gives NaN; {_REMEDY}")
    return tasks.probabilities(logits.double()).cpu()
