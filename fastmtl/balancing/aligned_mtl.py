"""The tasks' gradients, made orthogonal and equally long."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl.balancing.gramian_method import GramianMethod
from fastmtl.balancing.solvers import UnitGramian, symmetric_eigen


class AlignedMTL(GramianMethod):
    """Aligned-MTL (Senushkin et al. 2023, "Independent component alignment for multi-task
    learning", algorithm 1): the sum of the orthogonal gradients closest to the given ones, all as
    long as the smallest of their principal components. With S = V diag(l) V^T of rank R and
    l_1 >= ... >= l_R,

        c = sqrt(l_R) V diag(l)^(-1/2) V^T 1

    R counts the eigenvalues above l_1 T eps, as in the authors' code; so do their preferences of 1.
    Weights can be negative, and what they sum to varies; absent tasks do not count.

    Args:
        model: as in GramianBalancer.
        place: `balance_at` and `scope`, as in GramianBalancer.

    Raises:
        TypeError or ValueError: for a model without a SharedLinear or TaskFork.

    Examples:
        >>> from fastmtl.nn import TaskFork
        >>> fork = TaskFork(num_tasks=2)
        >>> balancer = AlignedMTL(fork)
        >>> z = torch.zeros(2, requires_grad=True)
        >>> first, second = fork.views(z)
        >>> total = balancer.backward(torch.stack([first[0], 4 * second[1]]))
        >>> balancer.weights, z.grad
        (tensor([1.0000, 0.2500]), tensor([1., 1.]))
    """

    def _solve(self, tasks: UnitGramian) -> Tensor:
        values, vectors = symmetric_eigen(tasks.products)
        kept = values > tasks.rounding * values.max()
        least = torch.where(kept, values, torch.inf).min()
        scales = torch.where(kept, (least / torch.where(kept, values, 1)).sqrt(), 0)
        return vectors @ (scales * (vectors.T @ tasks.present.double()))
