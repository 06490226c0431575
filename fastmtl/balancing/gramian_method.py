"""What the methods have in common that find their weights from the Gramian by themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from fastmtl.balancing.gramian import GramianBalancer, Place
from fastmtl.balancing.solvers import UnitGramian


class GramianMethod(GramianBalancer):
    """A GramianBalancer whose weights come from `_solve`, in float64.

    A task whose gradient is 0 has no part in any of these methods, whether it is absent or its loss
    is at its minimum: its weight is 0, and it is not counted among the P tasks.
    """

    def __init__(self, model: Any, **place: Unpack[Place]) -> None:
        super().__init__(model, self._of_gramian, **place)

    def _of_gramian(self, gramian: Tensor) -> Tensor:
        finite = gramian.isfinite().all()
        tasks = UnitGramian.of(torch.where(finite, gramian, 0))
        weights = torch.where(tasks.present, self._solve(tasks), 0)
        return torch.where(finite, weights, torch.nan).to(gramian.dtype)

    def _solve(self, tasks: UnitGramian) -> Tensor:
        """The weights (T,) float64 of the tasks that are present."""
        raise NotImplementedError
