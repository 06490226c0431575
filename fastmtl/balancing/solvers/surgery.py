"""Changing each task's gradient by the others', one after the other."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastmtl.balancing.solvers.unit_gramian import UnitGramian

# From <g'_i, g_j> (T,), ||g'_i||^2 (T,), and j (T,), what to add of g_j to g'_i, (T,).
Change = Callable[[Tensor, Tensor, Tensor], Tensor]


def operate(tasks: UnitGramian, order: Tensor, change: Change) -> Tensor:
    """Weights (T,) of sum_i g'_i, where g'_i begins as g_i and visits the others in turn,

        g'_i <- g'_i + change(<g'_i, g_j>, ||g'_i||^2, j) g_j,    j = order[i, 0], order[i, 1], ...

    for all i at once: g'_i is known by its coefficients and by its products with all g_k. `order`
    (T, T) holds a permutation of all tasks in each row, its own too, which it does not visit.
    """
    rows = torch.arange(len(order), device=order.device)
    coefficients = torch.eye(len(order), dtype=torch.float64, device=order.device)
    products = tasks.products.clone()
    for visited in order.unbind(1):
        at = visited.unsqueeze(1)
        squares = (coefficients * products).sum(1)
        added = change(products.gather(1, at).squeeze(1), squares, visited)
        added = torch.where((visited != rows) & tasks.present[visited], added, 0).unsqueeze(1)
        coefficients.scatter_add_(1, at, added)
        products += added * tasks.products[visited]
    return coefficients.sum(0)
