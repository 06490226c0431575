"""Reference for quadratic programs over v >= 0.

    v = argmin v^T H v / 2 + q^T v;    H v + q = s,  v >= 0,  s >= 0,  v s = 0 where it is least

by Mehrotra's predictor and corrector (1992), an interior-point method: its number of iterations
hardly depends on the problem, and where the solution is not one point it goes to the middle of all.
Scaled by the diagonal of H, so that entries are of size 1 whatever the units of v.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl.backends.precision import full_precision
from fastmtl.backends.reference._iteration import is_over

# The most that any of thousands of problems took was 21, degenerate ones included.
ITERATIONS = 30
TOLERANCE = 1e-15
NEARLY_ALL = 0.995  # of the way to the boundary


def nonnegative_qp(
    matrix: Tensor,  # (T, T)
    linear: Tensor,  # (B, T)
) -> Tensor:
    """argmin over v >= 0 of v^T H v / 2 + q^T v for every row q, (B, T); NaN for all where an entry
    is not finite. Computed in float64."""
    h, q, lengths, finite = scaled(matrix, linear)
    with full_precision(matrix.device):
        v = _solve(h, q)
    return torch.where(finite, v * lengths, torch.nan).to(linear.dtype)


def scaled(matrix: Tensor, linear: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """H with a diagonal of 1, (T, T), q (B, T) and what v is to be multiplied by, (T,), in float64,
    and whether all is finite."""
    finite = matrix.isfinite().all() & linear.isfinite().all()
    h, q = torch.where(finite, matrix.double(), 0), torch.where(finite, linear.double(), 0)
    diagonal = h.diagonal()
    lengths = torch.where(diagonal > 0, diagonal, 1).rsqrt()
    return h * lengths * lengths.unsqueeze(1), q * lengths, lengths, finite


def _solve(h: Tensor, q: Tensor) -> Tensor:
    if not q.numel():
        return q
    scale = q.abs().amax(1, keepdim=True)
    q = q / torch.where(scale > 0, scale, 1)
    v, slack = torch.ones_like(q), torch.ones_like(q)
    for _ in range(ITERATIONS):
        residual = v @ h + q - slack
        gap = (v * slack).mean(1, keepdim=True)
        if is_over((gap.max() >= TOLERANCE) | (residual.abs().max() >= 100 * TOLERANCE)):
            break
        factor, _ = torch.linalg.cholesky_ex(h + torch.diag_embed(slack / v))

        step = _substitute(factor, -residual - slack)
        slack_step = -slack - slack / v * step
        length = _length(v, step, slack, slack_step, 1.0)
        predicted = ((v + length * step) * (slack + length * slack_step)).mean(1, keepdim=True)
        correction = ((predicted / gap) ** 3 * gap - step * slack_step) / v

        step = _substitute(factor, correction - residual - slack)
        slack_step = correction - slack - slack / v * step
        length = _length(v, step, slack, slack_step, NEARLY_ALL)
        good = (step + slack_step).isfinite().all(1, keepdim=True)
        # Neither must reach 0, by which the next iteration divides.
        v = torch.where(good, v + length * step, v).clamp(min=1e-280)
        slack = torch.where(good, slack + length * slack_step, slack).clamp(min=1e-280)
    return v * scale


def _substitute(factor: Tensor, right: Tensor) -> Tensor:
    return torch.cholesky_solve(right.unsqueeze(2), factor).squeeze(2)


def _length(v: Tensor, step: Tensor, slack: Tensor, slack_step: Tensor, part: float) -> Tensor:
    """How far (B, 1) both can go until one is 0, at most 1."""
    values, steps = torch.cat([v, slack], 1), torch.cat([step, slack_step], 1)
    bound = torch.where(steps < 0, -values / steps, torch.inf).amin(1, keepdim=True)
    return (part * bound).clamp(max=1)


nonnegative_qp_forward = nonnegative_qp
