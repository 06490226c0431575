"""Eigenvalues and eigenvectors of small symmetric matrices."""

from __future__ import annotations

import torch
from torch import Tensor

# Convergence is quadratic: 6 to 8 do for matrices of 100 rows.
_SWEEPS = 10


def symmetric_eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (T,), in no order, and eigenvectors, the columns of a (T, T), of a finite matrix.

    On the CPU by LAPACK. torch.linalg.eigh waits for a GPU, to look at its error code, so there it
    is Jacobi's method: each round rotates T / 2 disjoint pairs of rows and columns at once.
    """
    if matrix.device.type == "cpu":
        values, vectors = torch.linalg.eigh(matrix)
        return values, vectors
    return jacobi(matrix)


def jacobi(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The same by Jacobi's method, without waiting for a device."""
    size = len(matrix)
    half = (size + 1) // 2
    even = 2 * half
    a = torch.zeros(even, even, dtype=matrix.dtype, device=matrix.device)
    a[:size, :size] = matrix
    vectors = torch.eye(even, dtype=matrix.dtype, device=matrix.device)
    turn = _turn(even, matrix.device)
    for _ in range(_SWEEPS * max(even - 1, 1)):
        rotation = _rotation(a, half)[:, turn]
        a = rotation.T @ a @ rotation
        vectors = vectors @ rotation
    # The row that made the size even is the eigenvector that lies in it alone.
    order = vectors[size:].abs().sum(0).argsort()[:size]
    return a.diagonal()[order], vectors[:size, order]


def _rotation(a: Tensor, half: int) -> Tensor:
    """The rotations that make a_{k, half + k} zero for all k, as one orthogonal matrix."""
    first, second = a.diagonal()[:half], a.diagonal()[half:]
    off = a.diagonal(half)
    ratio = (second - first) / (2 * torch.where(off != 0, off, 1))
    sign = torch.where(ratio >= 0, 1.0, -1.0)
    tangent = torch.where(off != 0, sign / (ratio.abs() + (ratio * ratio + 1).sqrt()), 0)
    cosine = (tangent * tangent + 1).rsqrt()
    sine = tangent * cosine
    return torch.diag(cosine.repeat(2)) + torch.diag(sine, half) - torch.diag(sine, -half)


def _turn(even: int, device: torch.device) -> Tensor:
    """The order in which the next round pairs the rows: around a table, all but the first move on
    by one seat."""
    half = even // 2
    seat = torch.arange(even, device=device)
    if half == 1:
        return seat
    top = torch.where(seat == 0, 0, torch.where(seat == 1, half, seat - 1))
    bottom = torch.where(seat == even - 1, half - 1, seat + 1)
    return torch.where(seat < half, top, bottom)
