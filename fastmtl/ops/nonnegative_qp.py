"""Quadratic programs over non-negative vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl import _checks
from fastmtl.backends.reference import nonnegative_qp as reference
from fastmtl.ops._op import FusedOp


@torch.no_grad()
def nonnegative_qp(
    matrix: Tensor,  # (T, T)
    linear: Tensor,  # (B, T)
) -> Tensor:
    """The minimum of a quadratic function over non-negative vectors, for several linear parts.

        argmin_v v^T H v / 2 + q^T v,    v >= 0

    for each row q of `linear`: with H the Gramian of gradients g_j and q_j = <g_j, d>, d + sum_j
    v_j g_j is the projection of d onto the directions along which no loss rises (the dual cone, as
    in Quinton and Rey 2024). By block principal pivoting (Judice and Pires 1994, "A block principal
    pivoting algorithm for large-scale strictly monotone linear complementarity problems") or, where
    the minimum is hardly one point, and on a GPU, by interior points (Mehrotra 1992); in float64.

    Args:
        matrix: H, symmetric and positive definite, float32 or float64. Scaled to a diagonal of 1,
            what is added to that should be above the rounding errors of the entries.
        linear: q, in its dtype.

    Shape:
        matrix (T, T), linear (B, T); the minima (B, T) in its dtype, without a graph, and NaN where
        an entry of either is not finite.

    Raises:
        TypeError, ValueError: for arguments of the wrong type, dtype, shape or device.

    Examples:
        >>> import torch
        >>> from fastmtl.ops import nonnegative_qp
        >>> nonnegative_qp(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[-1.0, 3.0]]))
        tensor([[0.5000, 0.0000]])
    """
    _check(matrix, linear)
    return _nonnegative_qp(matrix, linear)


def _check(matrix: Tensor, linear: Tensor) -> None:
    _checks.need_floating("matrix", matrix)
    _checks.need_floating("linear", linear)
    if linear.dtype != matrix.dtype:
        raise TypeError(f"linear: expected the dtype of matrix, {matrix.dtype}, got {linear.dtype}")
    if matrix.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"matrix: expected float32 or float64, got {matrix.dtype}")
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"matrix: expected shape (T, T), got {tuple(matrix.shape)}")
    if linear.dim() != 2 or linear.shape[1] != len(matrix):
        raise ValueError(
            f"linear: expected shape (B, T) with T = {len(matrix)}, got {tuple(linear.shape)}"
        )
    _checks.need_device("linear", linear, "matrix", matrix)


_nonnegative_qp = FusedOp(
    reference.nonnegative_qp,
    # The reference's iterations would be hundreds of nodes.
    fake=lambda matrix, linear: linear.new_empty(linear.shape),
    guard=_check,
)
