"""Sums of gradients that are changed by one another in turn, as weights."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl import _checks
from fastmtl.backends.reference import gradient_surgery as reference
from fastmtl.ops._op import FusedOp, traced


@torch.no_grad()
def pcgrad_weights(
    gramian: Tensor,  # (T, T)
    order: Tensor,  # (T, T)
) -> Tensor:
    """Weights of the sum of T gradients, each projected off those that it conflicts with.

        g'_i <- g'_i - <g'_i, g_j> / ||g_j||^2 g_j  where <g'_i, g_j> < 0,    sum_i g'_i

    (Yu et al. 2020, "Gradient surgery for multi-task learning", algorithm 1) from the Gramian S_ij
    = <g_i, g_j>; g'_i begins as g_i and visits the tasks in the order of row i, but for its own and
    those whose gradient is 0, which have no weight. In float64.

    Args:
        gramian: S, float32 or float64.
        order: int64, on its device, a permutation of the tasks in each row. Indices out of range
            are refused on the CPU; on a GPU, which does not wait to look, they are not visited or
            end the program.

    Shape:
        gramian and order (T, T); the weights (T,) in the dtype of gramian, without a graph, and NaN
        where an entry of it is not finite.

    Raises:
        TypeError, ValueError: for arguments of the wrong type, dtype, shape or device, or an order
            that has an index out of range.

    Examples:
        >>> import torch
        >>> from fastmtl.ops import pcgrad_weights
        >>> gramian = torch.tensor([[1.0, -1.0], [-1.0, 2.0]])  # of (1, 0) and (-1, 1)
        >>> pcgrad_weights(gramian, torch.tensor([[0, 1], [1, 0]]))
        tensor([2.0000, 1.5000])
    """
    _check(gramian, order)
    return _pcgrad_weights(gramian, order)


@torch.no_grad()
def gradvac_weights(
    gramian: Tensor,  # (T, T)
    order: Tensor,  # (T, T)
    phihat: Tensor,  # (T, T)
    beta: float = 0.01,
    *,
    rounding: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Weights of the sum of T gradients, each turned to be as similar to the others as usual.

        phi = cos(g'_i, g_j);    where phi < phihat_ij:
        g'_i <- g'_i + ||g'_i|| (phihat sqrt(1 - phi^2) - phi sqrt(1 - phihat^2))
                       / (||g_j|| sqrt(1 - phihat^2)) g_j
        phihat_ij <- (1 - beta) phihat_ij + beta phi,    sum_i g'_i

    (Wang et al. 2021, "Gradient vaccine", algorithm 1 and equation 3), in the order of
    `pcgrad_weights`.

    Args:
        gramian: S, float32 or float64.
        order: as in `pcgrad_weights`.
        phihat: the cosines that are usual, in the dtype of gramian.
        beta: how fast these follow, in (0, 1].
        rounding: the relative error that S can have: what is left of a gradient below it is 0. By
            default T roundings of its dtype.

    Shape:
        gramian, order and phihat (T, T); the weights (T,) and the new phihat (T, T) in the dtype of
        gramian, without a graph. Where an entry of gramian is not finite the weights are NaN and
        phihat is what it was.

    Raises:
        TypeError, ValueError: for arguments of the wrong type, dtype, shape or device, an order
            that has an index out of range, or numbers out of range.

    Examples:
        >>> import torch
        >>> from fastmtl.ops import gradvac_weights
        >>> gramian = torch.tensor([[1.0, -1.0], [-1.0, 2.0]])
        >>> order = torch.tensor([[0, 1], [1, 0]])
        >>> gradvac_weights(gramian, order, torch.zeros(2, 2), beta=0.5)
        (tensor([2.0000, 1.5000]), tensor([[ 0.0000, -0.3536],
                [-0.3536,  0.0000]]))
    """
    _check_gradvac(gramian, order, phihat, beta, 0.0 if rounding is None else rounding)
    if rounding is None:
        rounding = len(gramian) * torch.finfo(gramian.dtype).eps
    return _gradvac_weights(gramian, order, phihat, float(beta), float(rounding))


def _check(gramian: Tensor, order: Tensor) -> None:
    _checks.need_floating("gramian", gramian)
    if gramian.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"gramian: expected float32 or float64, got {gramian.dtype}")
    if gramian.dim() != 2 or gramian.shape[0] != gramian.shape[1]:
        raise ValueError(f"gramian: expected shape (T, T), got {tuple(gramian.shape)}")
    _checks.need_tensor("order", order)
    if order.dtype != torch.int64:
        raise TypeError(f"order: expected int64, got {order.dtype}")
    _checks.need_shape("order", order, tuple(gramian.shape), "(T, T)")
    _checks.need_device("order", order, "gramian", gramian)
    if order.is_cpu and order.numel() and not traced(order):
        # Not by the tensor's own operations, which on a device would be waited for.
        numbers = order.numpy()
        least, largest = int(numbers.min()), int(numbers.max())
        if least < 0 or largest >= len(order):
            raise ValueError(
                f"order: expected indices from 0 to {len(order) - 1}, got {least} to {largest}"
            )


def _check_gradvac(
    gramian: Tensor, order: Tensor, phihat: Tensor, beta: float, rounding: float
) -> None:
    _checks.need_floating("gramian", gramian)
    _checks.need_floating("phihat", phihat)
    if phihat.dtype != gramian.dtype:
        raise TypeError(
            f"phihat: expected the dtype of gramian, {gramian.dtype}, got {phihat.dtype}"
        )
    _check(gramian, order)
    _checks.need_shape("phihat", phihat, tuple(gramian.shape), "(T, T)")
    _checks.need_device("phihat", phihat, "gramian", gramian)
    _checks.need_number("beta", beta, above=0.0)
    if beta > 1:
        raise ValueError(f"beta: expected a number in (0, 1], got {beta}")
    _checks.need_number("rounding", rounding)


_pcgrad_weights = FusedOp(
    reference.pcgrad_weights,
    # The reference's visits would be a node each.
    fake=lambda gramian, order: gramian.new_empty(len(gramian)),
    guard=_check,
)
_gradvac_weights = FusedOp(
    reference.gradvac_weights,
    outputs=2,
    fake=lambda gramian, order, phihat, *_: (
        gramian.new_empty(len(gramian)),
        phihat.new_empty(phihat.shape),
    ),
    guard=_check_gradvac,
)
