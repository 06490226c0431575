"""Methods of gradient-based multi-task optimisation as their papers write them: on the gradients
themselves, task by task, with scipy where there is something to solve.

Each takes gradients (T, D) float64 that are not 0 and returns the weights (T,) of their sum.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

Method = Callable[[Tensor], Tensor]


def drawn_orders(num_tasks: int) -> list[list[int]]:
    """The orders in which PCGrad and GradVac visit the tasks, from PyTorch's generator."""
    return [list(map(int, row)) for row in torch.rand(num_tasks, num_tasks).argsort(1)]


def pcgrad(grads: Tensor) -> Tensor:
    changed = torch.eye(len(grads), dtype=grads.dtype)
    for i, order in enumerate(drawn_orders(len(grads))):
        grad = grads[i].clone()
        for j in order:
            product = grad @ grads[j]
            if j != i and product < 0:
                share = product / (grads[j] @ grads[j])
                grad -= share * grads[j]
                changed[i, j] -= share
    return changed.sum(0)


class GradVac:
    def __init__(self, beta: float = 0.01) -> None:
        self.beta = beta
        self.phihat: Tensor | None = None

    def __call__(self, grads: Tensor) -> Tensor:
        if self.phihat is None:
            self.phihat = torch.zeros(len(grads), len(grads), dtype=grads.dtype)
        changed = torch.eye(len(grads), dtype=grads.dtype)
        for i, order in enumerate(drawn_orders(len(grads))):
            grad = grads[i].clone()
            for j in order:
                if j == i or grad.norm() < 1e-7 * grads[i].norm():
                    continue
                hat = float(self.phihat[i, j])
                phi = float(torch.cosine_similarity(grad, grads[j], 0, eps=0))
                phi = min(1.0, max(-1.0, phi))
                if phi < hat:
                    sine, sine_hat = (1 - phi**2) ** 0.5, max(1 - hat**2, 1e-12) ** 0.5
                    share = grad.norm() * (hat * sine - phi * sine_hat)
                    share = share / (grads[j].norm() * sine_hat)
                    grad += share * grads[j]
                    changed[i, j] += share
                self.phihat[i, j] += self.beta * (phi - hat)
        return changed.sum(0)


def cagrad(grads: Tensor, c: float = 0.5) -> Tensor:
    scale = float(grads.norm(dim=1).max())
    g = (grads / scale).numpy()
    mean = g.mean(0)
    radius = c * np.linalg.norm(mean)

    def value(w: np.ndarray) -> float:
        return float(w @ g @ mean + radius * np.linalg.norm(w @ g))

    def slope(w: np.ndarray) -> np.ndarray:
        return g @ mean + radius * g @ (w @ g) / np.linalg.norm(w @ g)

    best = min(
        (
            optimize.minimize(
                value,
                start / start.sum(),
                jac=slope,
                method="SLSQP",
                bounds=[(0, 1)] * len(g),
                constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
                options={"ftol": 1e-16, "maxiter": 1000},
            )
            for start in (np.ones(len(g)), np.arange(1.0, len(g) + 1))
        ),
        key=lambda result: result.fun,
    )
    w = torch.tensor(best.x)
    return 1 / len(g) + radius * w / np.linalg.norm(best.x @ g)


def fair_grad(grads: Tensor, alpha: float = 1.0) -> Tensor:
    """S c = c^(-1/alpha) where the gradient of a convex function of c is 0."""
    power = 1 / alpha
    # In units of what each task's weight would be alone.
    alone = (grads.norm(dim=1) ** (-2 / (1 + power))).numpy()
    s = (grads @ grads.T).numpy() * alone[:, None] * alone
    b = s.diagonal()
    s, b = s / b.max(), b / b.max()

    def value(x: np.ndarray) -> float:
        if (x <= 0).any():
            return np.inf
        utility = np.log(x) if power == 1 else x ** (1 - power) / (1 - power)
        return float(x @ s @ x / 2 - b @ utility)

    found = np.ones(len(s))
    for _ in range(50):
        slope = s @ found - b * found**-power
        step = -np.linalg.solve(s + np.diag(power * b * found ** (-power - 1)), slope)
        if abs(slope @ step) < 1e-24 * (found @ s @ found):
            break
        size = 1.0
        while value(found + size * step) > value(found) + 0.1 * size * (slope @ step):
            size /= 2
            if size < 1e-12:
                break
        found = found + size * step if size >= 1e-12 else found
        if size < 1e-12:
            break
    assert np.abs(s @ found / (b * found**-power) - 1).max() < 1e-5
    return torch.tensor(found * alone)


def nash_mtl(grads: Tensor) -> Tensor:
    """The authors' code divides the Gramian by its Frobenius norm."""
    return fair_grad(grads / (grads @ grads.T).norm().sqrt(), 1.0)


def imtl_g(grads: Tensor) -> Tensor:
    units = grads / grads.norm(dim=1, keepdim=True)
    d, u = grads[0] - grads[1:], units[0] - units[1:]
    rest = grads[0] @ u.T @ torch.linalg.inv(d @ u.T)
    return torch.cat([1 - rest.sum(0, keepdim=True), rest])


def aligned_mtl(grads: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(grads @ grads.T)
    kept = values > values.max() * len(grads) * torch.finfo(grads.dtype).eps
    values, vectors = values[kept], vectors[:, kept]
    balance = values.min().sqrt() * vectors @ torch.diag(values.rsqrt()) @ vectors.T
    return balance.sum(0)


def config(grads: Tensor) -> Tensor:
    """Weights of the direction that the pseudo-inverse of the unit gradients gives."""
    units = grads / grads.norm(dim=1, keepdim=True)
    best = torch.linalg.pinv(units) @ grads.new_ones(len(grads))
    best = best / best.norm()
    combined = (grads @ best).sum() * best
    return (torch.linalg.pinv(units.T) @ combined) / grads.norm(dim=1)


def _added_by_projection(grads: Tensor, vector: Tensor) -> Tensor:
    """v >= 0 with which vector + sum_j v_j g_j is its projection onto the dual cone."""
    norms = grads.norm(dim=1)
    units = grads / norms.unsqueeze(1)
    added, _ = optimize.nnls(units.T.numpy(), -vector.numpy(), maxiter=10000)
    return torch.tensor(added) / norms


def upgrad(grads: Tensor) -> Tensor:
    eye = torch.eye(len(grads), dtype=grads.dtype)
    rows = [eye[i] + _added_by_projection(grads, grad) for i, grad in enumerate(grads)]
    return torch.stack(rows).mean(0)


def dual_proj(grads: Tensor) -> Tensor:
    return 1 / len(grads) + _added_by_projection(grads, grads.mean(0))
