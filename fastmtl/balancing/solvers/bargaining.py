"""The fixed point at which each task's gain is a power of its weight."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl.balancing.solvers.settle import is_settled
from fastmtl.balancing.solvers.unit_gramian import UnitGramian

# Ten do where all norms are of one size; eight decades between them can take 40.
_ITERATIONS = 60
_TOLERANCE = 1e-11
_MOST = 0.9  # of the way to the boundary


def bargain(tasks: UnitGramian, power: float) -> Tensor:
    """c > 0, (T,), with S c = c^-power: the minimum of a convex function.

    With c_j = y_j / ||g_j|| this is K y = z, z y^power = b with b_j = ||g_j||^(power - 1), solved
    for y and z by Newton's method, the second equation in logarithms. Where a convex combination of
    the gradients is 0 there is no solution; the ridge of K then bounds c, and the combination with
    it is close to 0.
    """
    h = tasks.regular
    norms = torch.where(tasks.present, tasks.norms, 1)
    log_right = (power - 1) * norms.log()
    y = torch.exp(log_right / (1 + power))
    z = torch.exp(log_right - power * y.log())
    for _ in range(_ITERATIONS):
        product = h @ y
        residual = product - z
        logs = log_right - z.log() - power * y.log()
        error = residual.abs() / (h.abs() @ y + z) + logs.abs()
        if is_settled(error.max() < _TOLERANCE):
            break
        factor, _ = torch.linalg.cholesky_ex(h + torch.diag(power * z / y))
        step = torch.cholesky_solve((z * logs - residual).unsqueeze(1), factor).squeeze(1)
        z_step = h @ step + residual
        values, steps = torch.cat([y, z]), torch.cat([step, z_step])
        bound = torch.where(steps < 0, -values / steps, torch.inf).min()
        length = (_MOST * bound).clamp(max=1)
        good = steps.isfinite().all()
        y = torch.where(good, y + length * step, y)
        z = torch.where(good, z + length * z_step, z)
    return y * tasks.inverse_norms
