"""Projections onto the dual cone of the gradients: the directions along which no loss rises."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl import ops
from fastmtl.balancing.solvers.unit_gramian import UnitGramian


def dual_cone_weights(tasks: UnitGramian, vectors: Tensor) -> Tensor:
    """v >= 0, (B, T), with which p + sum_j v_j u_j is the projection of p = sum_j a_j u_j onto

        {d: <u_j, d> >= 0 for all j},    v = argmin v^T K v / 2 + (K a)^T v

    for each row a of `vectors` (B, T). Where the gradients are dependent, v is in the middle of all
    solutions, in whatever order the tasks stand.
    """
    v = ops.nonnegative_qp(tasks.regular, vectors @ tasks.cosines)
    return torch.where(tasks.present, v, 0)
