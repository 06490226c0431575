"""Linear systems in the cosines of the gradients, which may be dependent."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl.balancing.solvers.unit_gramian import UnitGramian

RIDGE = 1e-9  # or that of the Gramian's precision
_PASSES = 4


def least_solution(tasks: UnitGramian, right: Tensor) -> Tensor:
    """z (T,) with K z = b; where the gradients are dependent, of all such z the one of least norm.

    By Tikhonov's regularisation, repeated on what is left of b, so that in the part of an
    eigenvalue x the error is (RIDGE / (x + RIDGE))^4 of the solution. A part of b outside the range
    of K is in z multiplied by 4 / RIDGE, and rules it.
    """
    ridge = max(RIDGE, tasks.ridge)
    h = tasks.regular + (ridge - tasks.ridge) * torch.diag(tasks.present.double())
    factor, _ = torch.linalg.cholesky_ex(h)
    right = torch.where(tasks.present, right, 0)
    z = torch.zeros_like(right)
    for _ in range(_PASSES):
        rest = right - tasks.cosines @ z
        z = z + torch.cholesky_solve(rest.unsqueeze(1), factor).squeeze(1)
    return z
