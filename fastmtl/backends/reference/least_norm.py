"""Reference for the combination of least norm."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl.backends.precision import full_precision


def least_norm_weights(gramian: Tensor, iterations: int) -> Tensor:
    """argmin over the simplex of c^T S c, (T,), without the tasks whose gradient is 0; NaN where S
    is not finite.

    With f = c^T S c / 2 and slope S c, moving the weight t <= c_a from task a to task b gains

        t (slope_a - slope_b) - t^2 D_ba / 2,    D_ba = ||g_a - g_b||^2,

    most at t = (slope_a - slope_b) / D_ba. Each iteration takes the best of all pairs.
    """
    finite, present = gramian.isfinite().all(), gramian.diagonal() > 0
    # The weights do not depend on the scale of S, but products of its entries could overflow.
    gramian = gramian / gramian.diagonal().max().clamp(min=torch.finfo(gramian.dtype).tiny)
    squares = gramian.diagonal()
    distances = (squares.unsqueeze(1) + squares - 2 * gramian).clamp(min=0)
    weights = present.to(gramian.dtype) / present.sum().clamp(min=1)
    tasks = torch.arange(len(weights), device=weights.device)
    for _ in range(iterations):
        with full_precision(gramian.device):
            slope = gramian @ weights
        drop = slope - slope.unsqueeze(1)  # [b, a]
        # Equal gradients are 0 / 0, with nothing to gain.
        length = (drop / distances).nan_to_num(0.0).clamp(min=0).minimum(weights)
        length = torch.where(present.unsqueeze(1), length, 0)
        gain = length * (drop - length * distances / 2)
        pair = gain.argmax(keepdim=True).view(1)
        b, a = pair.div(len(weights), rounding_mode="floor"), pair % len(weights)
        moved = length.view(-1)[pair]
        weights = weights + torch.where(tasks == b, moved, 0) - torch.where(tasks == a, moved, 0)
    return torch.where(finite, weights, torch.nan)


least_norm_weights_forward = least_norm_weights
