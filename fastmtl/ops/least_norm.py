"""The combination of gradients that has the smallest norm."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl import _checks
from fastmtl.backends.reference import least_norm as reference
from fastmtl.ops._op import FusedOp


@torch.no_grad()
def least_norm_weights(gramian: Tensor, iterations: int | None = None) -> Tensor:
    """Weights of the point of least norm in the convex hull of T gradients.

        argmin_c ||sum_j c_j g_j||^2 = argmin_c c^T S c,    c_j >= 0, sum_j c_j = 1

    (Sener and Koltun 2018, equation 3) from the Gramian S_ij = <g_i, g_j>, to the precision
    that S has, however far the norms of the gradients are apart. By active sets (Wolfe 1976,
    "Finding the nearest point in a polytope", on a better-conditioned problem), in float64: from
    the shortest gradient on, each iteration frees the task with the largest duality gap or fixes
    one whose weight has come down to 0, and none is left to be freed at the end.

    Where the gradients are dependent, of all weights with the least norm those are given that
    spread it most evenly, so that the order of the tasks makes no difference. Gradients of 0 are
    left out: their weight is 0, and all are 0 if there is no other. The scale of S changes nothing.

    Args:
        gramian: S, float32 or float64.
        iterations: how many there are at most, at least 1; by default ten times the tasks, and it
            seldom takes more than once. Stopped early, the norm is still at most that of the
            shortest gradient.

    Shape:
        gramian (T, T); the weights (T,) in its dtype, without a graph, and NaN where an entry of it
        is not finite.

    Raises:
        TypeError, ValueError: for arguments of the wrong type, dtype or shape.

    Examples:
        >>> import torch
        >>> from fastmtl.ops import least_norm_weights
        >>> least_norm_weights(torch.tensor([[1.0, 0.0], [0.0, 4.0]]))
        tensor([0.8000, 0.2000])
    """
    _check(gramian, iterations)
    if not gramian.numel():
        return gramian.new_empty(0)
    return _least_norm_weights(gramian, 10 * gramian.shape[0] if iterations is None else iterations)


def _check(gramian: Tensor, iterations: int | None) -> None:
    _checks.need_floating("gramian", gramian)
    if gramian.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"gramian: expected float32 or float64, got {gramian.dtype}")
    if gramian.dim() != 2 or gramian.shape[0] != gramian.shape[1]:
        raise ValueError(f"gramian: expected shape (T, T), got {tuple(gramian.shape)}")
    if iterations is not None and (not isinstance(iterations, int) or iterations < 1):
        raise ValueError(f"iterations: expected an int of at least 1, got {iterations!r}")


_least_norm_weights = FusedOp(
    reference.least_norm_weights,
    # The reference's iterations would be thousands of nodes.
    fake=lambda gramian, _: gramian.new_empty(len(gramian)),
    guard=_check,
)
