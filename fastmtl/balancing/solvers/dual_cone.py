"""Projections onto the dual cone of the gradients: the directions along which no loss rises."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl.balancing.solvers.settle import is_settled
from fastmtl.balancing.solvers.unit_gramian import UnitGramian

# The most that any of thousands of problems took was 21, degenerate ones included.
_ITERATIONS = 30
_TOLERANCE = 1e-15
_NEARLY_ALL = 0.995  # of the way to the boundary


def dual_cone_weights(tasks: UnitGramian, vectors: Tensor) -> Tensor:
    """v >= 0, (B, T), with which p + sum_j v_j u_j is the projection of p = sum_j a_j u_j onto

        {d: <u_j, d> >= 0 for all j},    v = argmin v^T K v / 2 + (K a)^T v

    for each row a of `vectors` (B, T). Mehrotra's predictor and corrector, an interior-point
    method: its number of iterations hardly depends on the problem, and where the gradients are
    dependent it goes to the middle of all solutions, in whatever order the tasks stand.
    """
    linear = vectors @ tasks.cosines
    scale = linear.abs().amax(1, keepdim=True)
    linear = linear / torch.where(scale > 0, scale, 1)
    h = tasks.regular
    v, slack = torch.ones_like(linear), torch.ones_like(linear)
    for _ in range(_ITERATIONS):
        residual = v @ h + linear - slack
        gap = (v * slack).mean(1, keepdim=True)
        if is_settled((gap.max() < _TOLERANCE) & (residual.abs().max() < 100 * _TOLERANCE)):
            break
        factor, _ = torch.linalg.cholesky_ex(h + torch.diag_embed(slack / v))

        step = _solve(factor, -residual - slack)
        slack_step = -slack - slack / v * step
        length = _length(v, step, slack, slack_step, 1.0)
        predicted = ((v + length * step) * (slack + length * slack_step)).mean(1, keepdim=True)
        correction = ((predicted / gap) ** 3 * gap - step * slack_step) / v

        step = _solve(factor, correction - residual - slack)
        slack_step = correction - slack - slack / v * step
        length = _length(v, step, slack, slack_step, _NEARLY_ALL)
        good = (step + slack_step).isfinite().all(1, keepdim=True)
        # Neither must reach 0, by which the next iteration divides.
        v = torch.where(good, v + length * step, v).clamp(min=1e-280)
        slack = torch.where(good, slack + length * slack_step, slack).clamp(min=1e-280)
    return torch.where(tasks.present, v * scale, 0)


def _solve(factor: Tensor, right: Tensor) -> Tensor:
    return torch.cholesky_solve(right.unsqueeze(2), factor).squeeze(2)


def _length(v: Tensor, step: Tensor, slack: Tensor, slack_step: Tensor, part: float) -> Tensor:
    """How far (B, 1) both can go until one is 0, at most 1."""
    values, steps = torch.cat([v, slack], 1), torch.cat([step, slack_step], 1)
    bound = torch.where(steps < 0, -values / steps, torch.inf).amin(1, keepdim=True)
    return (part * bound).clamp(max=1)
