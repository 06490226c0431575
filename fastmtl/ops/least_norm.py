"""The combination of gradients that has the smallest norm."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl import backends
from fastmtl.backends import reference
from fastmtl.ops import _checks

# The CUDA kernel is one block, which a larger problem would keep waiting.
_MOST_TASKS_CUDA = 1024


@torch.no_grad()
def least_norm_weights(gramian: Tensor, iterations: int = 100) -> Tensor:
    """Weights of the point of least norm in the convex hull of T gradients.

        argmin_c ||sum_j c_j g_j||^2 = argmin_c c^T S c,    c_j >= 0, sum_j c_j = 1

    (Sener and Koltun 2018, equation 3) from the Gramian S_ij = <g_i, g_j>, `gramian` (T, T),
    float32 or float64. Pairwise Frank-Wolfe: each iteration moves weight between the two tasks
    where that gains most, by exact line search, from equal weights on. One iteration is exact for
    two tasks; the error falls geometrically (Lacoste-Julien and Jaggi 2015, theorem 1), more slowly
    the more tasks.

    Gradients of 0 are left out: their weight is 0, and all are 0 if there is no other. The scale of
    S changes nothing. Returns (T,) in the dtype of `gramian`, without a graph; NaN where an entry
    of it is not finite. Raises TypeError or ValueError for another argument.

    Example:
        >>> import torch
        >>> from fastmtl.ops import least_norm_weights
        >>> least_norm_weights(torch.tensor([[1.0, 0.0], [0.0, 4.0]]))
        tensor([0.8000, 0.2000])
    """
    _checks.need_floating("gramian", gramian)
    if gramian.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"gramian: expected float32 or float64, got {gramian.dtype}")
    if gramian.dim() != 2 or gramian.shape[0] != gramian.shape[1]:
        raise ValueError(f"gramian: expected shape (T, T), got {tuple(gramian.shape)}")
    if not isinstance(iterations, int) or iterations < 1:
        raise ValueError(f"iterations: expected an int of at least 1, got {iterations!r}")
    if not gramian.numel():
        return gramian.new_empty(0)
    large = gramian.is_cuda and len(gramian) > _MOST_TASKS_CUDA
    if large or _checks.traced(gramian):
        return reference.least_norm_weights(gramian, iterations)
    kernels = backends.kernels("least_norm_weights", gramian.device)
    result: Tensor = kernels.least_norm_weights_forward(gramian, iterations)
    return result
