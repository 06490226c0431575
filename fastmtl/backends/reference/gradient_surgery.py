"""Reference for the weights of gradients that are changed by one another in turn.

g'_i begins as g_i and visits the others in the order that row i gives,

    g'_i <- g'_i + a g_j,    j = order[i, 0], order[i, 1], ...

For all i at once: g'_i is known by its coefficients C_i and by its products with all g_k, and a is
a function of <g'_i, g_j> and ||g'_i||^2 = sum_k C_ik <g'_i, g_k>. A gradient of 0 is not visited,
nor has it a weight. Computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# From <g'_i, g_j> (T,), ||g'_i||^2 (T,), and j (T,), what to add of g_j to g'_i, (T,).
Change = Callable[[Tensor, Tensor, Tensor], Tensor]


def pcgrad_weights(
    gramian: Tensor,  # (T, T)
    order: Tensor,  # (T, T)
) -> Tensor:
    """The weights (T,) of sum_i g'_i, with a = max(-<g'_i, g_j>, 0) / ||g_j||^2; NaN where an entry
    is not finite."""
    products, finite = finite_products(gramian)
    squares = products.diagonal()
    inverse = torch.where(squares > 0, 1 / squares, 0)

    def project(product: Tensor, square: Tensor, visited: Tensor) -> Tensor:
        return (-product).clamp(min=0) * inverse[visited]

    return weights_of(_operate(products, order, project), products, finite, gramian)


def gradvac_weights(
    gramian: Tensor,  # (T, T)
    order: Tensor,  # (T, T)
    phihat: Tensor,  # (T, T)
    beta: float,
    rounding: float,
) -> tuple[Tensor, Tensor]:
    """The weights (T,) of sum_i g'_i, turned where their cosines are below phihat, and the phihat
    (T, T) after that; NaN, and phihat as it was, where an entry is not finite. A g'_i whose square
    is at most `rounding` of that of g_i is 0."""
    products, finite = finite_products(gramian)
    targets = phihat.double()
    squares = products.diagonal()
    present = squares > 0
    inverse_norms = torch.where(present, squares.rsqrt(), 0)
    rows = torch.arange(len(squares), device=squares.device)
    least = rounding * squares

    def turn(product: Tensor, square: Tensor, visited: Tensor) -> Tensor:
        nonlocal targets
        at = visited.unsqueeze(1)
        target = targets.gather(1, at).squeeze(1)
        there = (square > least) & present[visited] & (visited != rows)
        norm = torch.where(there, square, 0).sqrt()
        inverse = inverse_norms[visited]
        cosine = torch.where(there, product / torch.where(there, norm, 1) * inverse, 0)
        cosine = cosine.clamp(-1, 1)
        mean = torch.where(there, target + beta * (cosine - target), target)
        targets = targets.scatter(1, at, mean.unsqueeze(1))
        # A cosine that is always 1 must not divide by 0 the day it is not.
        sine = (1 - target * target).clamp(min=1e-12).sqrt()
        turned = norm * (target * (1 - cosine * cosine).sqrt() / sine - cosine) * inverse
        return torch.where(cosine < target, turned, 0)

    coefficients = _operate(products, order, turn)
    return weights_of(coefficients, products, finite, gramian), targets.to(phihat.dtype, copy=True)


def finite_products(gramian: Tensor) -> tuple[Tensor, Tensor]:
    """S in float64, 0 where not all of it is finite, and whether it is."""
    finite = gramian.isfinite().all()
    return torch.where(finite, gramian.double(), 0), finite


def weights_of(
    coefficients: Tensor,  # (T, T)
    products: Tensor,  # (T, T)
    finite: Tensor,  # ()
    gramian: Tensor,
) -> Tensor:
    """The sums of the coefficients of all g'_i, (T,)."""
    weights = torch.where(products.diagonal() > 0, coefficients.sum(0), 0)
    return torch.where(finite, weights, torch.nan).to(gramian.dtype)


def _operate(products: Tensor, order: Tensor, change: Change) -> Tensor:
    """The coefficients C (T, T) of all g'_i."""
    rows = torch.arange(len(order), device=order.device)
    present = products.diagonal() > 0
    coefficients = torch.eye(len(order), dtype=torch.float64, device=order.device)
    changed = products
    for visited in order.unbind(1):
        at = visited.unsqueeze(1)
        squares = (coefficients * changed).sum(1)
        added = change(changed.gather(1, at).squeeze(1), squares, visited)
        added = torch.where((visited != rows) & present[visited], added, 0).unsqueeze(1)
        coefficients = coefficients.scatter_add(1, at, added)
        changed = changed + added * products[visited]
    return coefficients


pcgrad_weights_forward = pcgrad_weights
gradvac_weights_forward = gradvac_weights
