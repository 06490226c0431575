"""The tasks' gradients of log losses, all brought to the length of the longest."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Unpack

from fastmtl.balancing.gramian import Place
from fastmtl.balancing.gramian_method import GramianMethod
from fastmtl.balancing.running import RunningMeans
from fastmtl.balancing.solvers import UnitGramian


class DBMTL(GramianMethod):
    """Dual-balancing multi-task learning (Lin et al. 2023, equations 1 and 3): logarithms balance
    the losses, norms the gradients,

        d = max_k ||g_k|| sum_j g_j / ||g_j||,    g_j = d log L_j

    for everything up to and including the shared layer, while each task's own network gets the
    gradient of log L_j. `weights` is max_k ||g_k|| / ||g_j||, at least 1; absent tasks do not
    count. Without the running mean of the gradients (the paper's beta is 0), which would hold the T
    gradients that the Gramian does without. `backward` returns sum_j L_j / L_j.

    d log L_j is dL_j / L_j, and L_j there the mean of the task's loss over the last steps, about
    1 / (1 - momentum) of them: on one batch the loss of a rare label is close to 0, and its
    reciprocal would outdo all others. `momentum=0` takes each batch's, as the equation stands.
    Losses must not be negative; one whose mean is 0 counts as absent.

    Args:
        model: as in GramianBalancer.
        momentum: in [0, 1).
        place: `balance_at` and `scope`, as in GramianBalancer.

    Raises:
        TypeError or ValueError: for a model without a SharedLinear or TaskFork, or a momentum out
            of range.

    Examples:
        >>> from fastmtl.nn import TaskFork
        >>> fork = TaskFork(num_tasks=2)
        >>> balancer = DBMTL(fork)
        >>> z = torch.ones(2, requires_grad=True)
        >>> first, second = fork.views(z)
        >>> total = balancer.backward(torch.stack([first[0], 5 * second[1] ** 2]))
        >>> balancer.weights, z.grad  # the gradients of log L are (1, 0) and (0, 2)
        (tensor([2., 1.]), tensor([2., 2.]))
    """

    needs: ClassVar[str] = "losses, Gramian"
    adds: ClassVar[str] = "Gramian"

    def __init__(
        self,
        model: Any,
        *,
        momentum: float = 0.99,
        **place: Unpack[Place],
    ) -> None:
        super().__init__(model, **place)
        self.running = RunningMeans(self.weights, momentum)

    def _prepare(self, values: Tensor, present: Tensor | None) -> None:
        if present is None:
            present = values != 0
        self.running.add(values.to(self.weights.dtype), present & values.isfinite().all())

    def _total(self, losses: Tensor, values: Tensor, present: Tensor | None) -> Tensor:
        factors = 1 / self.running.means
        factors = torch.where((self.running.means > 0) & factors.isfinite(), factors, 0)
        return (factors * losses).sum().to(losses.dtype)

    def _solve(self, tasks: UnitGramian) -> Tensor:
        return tasks.norms.max() * tasks.inverse_norms
