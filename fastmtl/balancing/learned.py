"""Sums of losses whose factors are learned with the model."""

from __future__ import annotations

import torch
from torch import Tensor


def learned_total(
    factors: Tensor, penalties: Tensor, losses: Tensor, values: Tensor, present: Tensor | None
) -> Tensor:
    """sum_j factors_j L_j + penalties_j, whose gradient goes to the losses, and to what factors and
    penalties (T,) were made of: for the tasks that are present, where all losses are finite.

    The factors learn from the losses of all ranks, and no rank's differs: losses and values are
    equal but for their gradients and, under DistributedDataParallel, what each rank contributes.
    """
    if present is None:
        present = values != 0
    learned = present & values.isfinite().all()
    values = torch.where(learned, values, 0)
    fixed = factors.detach()
    terms = fixed * losses + (factors - fixed) * values
    return (terms + torch.where(learned, penalties, 0)).sum().to(losses.dtype)
