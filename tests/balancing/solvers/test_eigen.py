"""Jacobi's method, which stands in for LAPACK on a GPU."""

from __future__ import annotations

import pytest
import torch

from fastmtl.balancing.solvers.eigen import jacobi


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 32, 61])
@pytest.mark.parametrize("rank", [1, 1000])
def test_eigenvalues_and_eigenvectors(size: int, rank: int) -> None:
    torch.manual_seed(size)
    rows = torch.randn(size, min(size, rank) if rank == 1 else size + 2, dtype=torch.float64)
    matrix = rows @ rows.T
    values, vectors = jacobi(matrix)
    scale = matrix.abs().max()
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(size, dtype=torch.float64))
    torch.testing.assert_close(vectors * values @ vectors.T, matrix, rtol=0, atol=1e-12 * scale)
    expected = torch.linalg.eigvalsh(matrix)
    torch.testing.assert_close(values.sort().values, expected, rtol=0, atol=1e-12 * scale)
