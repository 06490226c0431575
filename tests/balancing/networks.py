"""Small networks for the balancers' tests, and GradNorm as its paper writes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from typing_extensions import Self

from fastmtl.balancing import aligned_mtl, conflict_free
from fastmtl.balancing.solvers import settle
from fastmtl.balancing.solvers.eigen import jacobi
from fastmtl.nn import SharedLinear, TaskLinear

T = 4
F64 = torch.float64


class Net(nn.Module):
    """(N, 6) or (N, L, 6) -> task losses (T,): a trunk, a shared layer, two layers of each task."""

    def __init__(self, trunk: str = "mlp", num_tasks: int = T) -> None:
        super().__init__()
        self.gru = nn.GRU(6, 4, bidirectional=True, batch_first=True) if trunk == "gru" else None
        self.mlp = nn.Sequential(nn.Linear(6, 8), nn.Tanh()) if trunk == "mlp" else None
        self.shared = SharedLinear(8, 5, num_tasks)
        self.first = TaskLinear(5, 3, num_tasks)
        self.last = TaskLinear(3, 1, num_tasks)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.mlp(x) if self.gru is None else self.gru(x)[0]
        out = self.last(self.first(self.shared(hidden)).tanh())
        scale = torch.arange(1, len(out) + 1, dtype=out.dtype, device=out.device)
        return scale * (out.flatten(1) - 1).square().mean(1)

    def task_weight(self, balance_at: str) -> SharedLinear | nn.Parameter:
        return self.shared if balance_at == "shared" else getattr(self, balance_at).weight


def batch(trunk: str = "mlp", seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    sizes = (7, 6) if trunk == "mlp" else (3, 4, 6)
    return torch.randn(sizes, dtype=F64, generator=generator)


def differentiable(net: Net, x: Tensor) -> Tensor:
    """The losses with a graph that can be differentiated twice, as that of no watched layer can."""
    watch = net.shared.watch
    net.shared.watch = None
    losses: Tensor = net(x)
    net.shared.watch = watch
    return losses


def task_norms(
    losses: Tensor, weights: Tensor, of: Tensor | list[Tensor], create_graph: bool = True
) -> Tensor:
    """||d(w_j L_j)/dW|| by one backward pass for each task, differentiable in w if asked.

    `of` is W, shared by the tasks, or a list of one W for each.
    """
    parameters = of if isinstance(of, list) else [of] * len(losses)
    norms = []
    for weight, loss, parameter in zip(weights, losses, parameters, strict=True):
        (grad,) = torch.autograd.grad(
            weight * loss, parameter, retain_graph=True, create_graph=create_graph
        )
        norms.append(grad.norm())
    return torch.stack(norms)


def stacked_task_norms(
    losses: Tensor, weights: Tensor, of: Tensor, create_graph: bool = True
) -> Tensor:
    """The same for a parameter (T, ...) stacked by task."""
    norms = []
    for j, (weight, loss) in enumerate(zip(weights, losses, strict=True)):
        (grad,) = torch.autograd.grad(
            weight * loss, of, retain_graph=True, create_graph=create_graph
        )
        norms.append(grad[j].norm())
    return torch.stack(norms)


def step_by_autograd(
    weights: Tensor,
    losses: Tensor,
    initial: Tensor,
    norms_of: Callable[[Tensor], Tensor],
    *,
    factors: Tensor | float = 1.0,
    alpha: float = 1.0,
    lr: float = 0.025,
    floor: float = 1e-3,
    normalize: bool = True,
) -> Tensor:
    """One step of GradNorm's weights, with dTL/dw by differentiating the norms."""
    weights = weights.clone().requires_grad_()
    norms = norms_of(weights)
    progress = (losses / initial).detach()
    mean = norms.mean().detach()
    target = mean * (progress / progress.mean()) ** alpha
    task_loss = (factors * (norms - target).abs()).sum() / (mean if normalize else 1)
    (grad,) = torch.autograd.grad(task_loss, weights)
    stepped = (weights.detach() - lr * grad).clamp(min=floor)
    return stepped * len(stepped) / stepped.sum()


class NoHostSync(TorchDispatchMode):
    """Raises where a value would have to travel from the device to Python. The solvers do what they
    do on a GPU, where they cannot leave early."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select")

    def __enter__(self) -> Self:
        self._patches = pytest.MonkeyPatch()
        self._patches.setattr(settle, "_must_wait", lambda device: True)
        self._patches.setattr(aligned_mtl, "symmetric_eigen", jacobi)
        self._patches.setattr(conflict_free, "symmetric_eigen", jacobi)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patches.undo()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func.overloadpacket.__name__
        assert name not in self.FORBIDDEN, f"{name} waits for the device"
        return func(*args, **(kwargs or {}))
