"""The combination of gradients that has the smallest norm."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl import _checks
from fastmtl.backends.reference import least_norm as reference
from fastmtl.ops._op import FusedOp


@torch.no_grad()
def least_norm_weights(gramian: Tensor, iterations: int = 100) -> Tensor:
    """Weights of the point of least norm in the convex hull of T gradients.

        argmin_c ||sum_j c_j g_j||^2 = argmin_c c^T S c,    c_j >= 0, sum_j c_j = 1

    (Sener and Koltun 2018, equation 3) from the Gramian S_ij = <g_i, g_j>. Pairwise Frank-Wolfe:
    each iteration moves weight between the two tasks where that gains most, by exact line search,
    from equal weights on. One iteration is exact for two tasks; the error falls geometrically
    (Lacoste-Julien and Jaggi 2015, theorem 1), more slowly the more tasks.

    Gradients of 0 are left out: their weight is 0, and all are 0 if there is no other. The scale of
    S changes nothing.

    Args:
        gramian: S, float32 or float64.
        iterations: at least 1.

    Shape:
        gramian (T, T); the weights (T,) in its dtype, without a graph, and NaN where an entry of it
        is not finite.

    Raises:
        TypeError, ValueError: for arguments of the wrong type, dtype or shape.

    Example:
        >>> import torch
        >>> from fastmtl.ops import least_norm_weights
        >>> least_norm_weights(torch.tensor([[1.0, 0.0], [0.0, 4.0]]))
        tensor([0.8000, 0.2000])
    """
    _check(gramian, iterations)
    if not gramian.numel():
        return gramian.new_empty(0)
    return _least_norm_weights(gramian, iterations)


def _check(gramian: Tensor, iterations: int) -> None:
    _checks.need_floating("gramian", gramian)
    if gramian.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"gramian: expected float32 or float64, got {gramian.dtype}")
    if gramian.dim() != 2 or gramian.shape[0] != gramian.shape[1]:
        raise ValueError(f"gramian: expected shape (T, T), got {tuple(gramian.shape)}")
    if not isinstance(iterations, int) or iterations < 1:
        raise ValueError(f"iterations: expected an int of at least 1, got {iterations!r}")


_least_norm_weights = FusedOp(
    reference.least_norm_weights,
    # The reference's iterations would be thousands of nodes.
    fake=lambda gramian, _: gramian.new_empty(len(gramian)),
    guard=_check,
)
