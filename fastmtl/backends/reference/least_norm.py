"""Reference for the combination of least norm.

With n_j = ||g_j||, d_j = min n / n_j and weights c_j proportional to d_j v_j, where the scale of
v is free, c^T S c is least where v minimises, over v >= 0,

    f(v) = v^T H v / 2 - d^T v,    H_ij = S_ij / (n_i n_j) + d_i d_j + RIDGE [i = j]

whose entries are of size 1 however far the norms are apart. d d^T keeps the minimum finite where 0
is in the hull, and moves no c: it adds a constant to c^T S c. The ridge makes the minimum one point
where the gradients are dependent: of all weights with the least norm, those that spread it evenly,
in whatever order the tasks stand. What it costs in norm is won back by a second minimisation, with
RIDGE |v - centre|^2 around the minimum of the first.

The method is that of active sets, from the shortest gradient on. The tasks that are `free` have
weights, and `inverse` is the inverse of their part of H. An iteration goes towards the minimum over
the free tasks, and ends where a weight reaches 0, whose task is free no more; at the minimum, the
task that violates slope >= 0 most is freed. Where none does there is no duality gap left:
(S c)_j >= c^T S c for all j.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl.backends.precision import full_precision
from fastmtl.backends.reference._iteration import is_over

# By the dtype of the Gramian: above its rounding errors, which would choose between dependent
# gradients, and for float64 above what the inverse can bear.
RIDGE = {torch.float32: 1e-5, torch.float64: 1e-6}
TOLERANCE = 1e-13  # of the slope


def least_norm_weights(gramian: Tensor, iterations: int) -> Tensor:
    """argmin over the simplex of c^T S c, (T,), without the tasks whose gradient is 0; NaN where S
    is not finite. Computed in float64."""
    with full_precision(gramian.device):
        weights = _solve(gramian.double(), RIDGE[gramian.dtype], iterations)
    return torch.where(gramian.isfinite().all(), weights, torch.nan).to(gramian.dtype)


def _solve(gramian: Tensor, ridge: float, iterations: int) -> Tensor:
    tasks = torch.arange(len(gramian), device=gramian.device)
    present = gramian.diagonal() > 0
    norms = torch.where(present, gramian.diagonal(), torch.inf).sqrt()
    d = torch.where(present, norms.min() / norms, 0)
    h = gramian / norms / norms.unsqueeze(1) + d * d.unsqueeze(1)
    h = h + ridge * torch.eye(len(d), dtype=h.dtype, device=h.device)
    free = (tasks == d.argmax()) & present
    v = free / h.diagonal()
    inverse, slope = torch.diag(v), h @ v - d
    first, running = present.any(), present.any()
    for _ in range(iterations):
        rest = torch.where(free, slope.abs(), 0).max()
        lowest = torch.where(present & ~free, slope, torch.inf).min(0)
        # Not before the free tasks are at their minimum, as far as that matters.
        enters = (lowest.values < -TOLERANCE) & (-lowest.values > 100 * rest) & running
        entering = (tasks == lowest.indices) & enters
        column = h @ entering.to(h.dtype)
        border = inverse @ column - entering.to(h.dtype)
        # Rounding errors of the Gramian can make it less than the ridge.
        pivot = (-border @ column).clamp(min=ridge / 2)
        inverse = inverse + torch.where(enters, border * border.unsqueeze(1) / pivot, 0)
        free = free | entering

        minimal = ~enters & (rest <= TOLERANCE)
        running = running & (first | ~minimal)
        again = minimal & running
        slope = slope - torch.where(again, ridge * v, 0)
        first = first & ~again

        direction = -(inverse @ slope)
        change = h @ direction
        fall, curvature = -(slope @ direction), direction @ change
        best = torch.where(curvature > 0, fall / curvature, torch.inf)
        bound = torch.where(free & (direction < 0), -v / direction, torch.inf).min(0)
        length = torch.minimum(best, bound.values)
        running = running & (fall > 0) & (length < torch.inf)
        length = torch.where(running, length, 0)
        v, slope = (v + length * direction).clamp(min=0), slope + length * change

        leaving = (tasks == bound.indices) & (bound.values <= best) & running
        row = torch.where(leaving.unsqueeze(1), inverse, 0).sum(0)
        own = torch.where(leaving.any(), torch.where(leaving, row, 0).sum(), 1)
        inverse = inverse - row * row.unsqueeze(1) / own
        v, inverse = v.masked_fill(leaving, 0), inverse.masked_fill(leaving.unsqueeze(1), 0)
        inverse = inverse.masked_fill(leaving, 0)
        free = free & ~leaving
        # What a task would gain that enters and leaves at once is below rounding.
        running = running & ~(entering & leaving).any()
        if is_over(running):
            break
    weights = d * v
    return weights / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)


least_norm_weights_forward = least_norm_weights
