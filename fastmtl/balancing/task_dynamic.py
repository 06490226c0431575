"""Task-level dynamic balancing: gradient norms, with a penalty on the imbalance of each task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fastmtl._checks import need_shape, need_size
from fastmtl._deprecation import takes_old_arguments
from fastmtl.balancing.grad_norm import GradNorm


class TaskDynamicBalancing(GradNorm):
    """Task-level dynamic balancing (TDB): GradNorm with the task imbalance penalty N / n_j.

        TL = sum_j (N / n_j) |G_j - target_j|,    target_j = Gbar r_j^alpha, held constant
        dTL/dw_j = (N / n_j) sign(G_j - target_j) G_j / w_j

    with N training samples, of which n_j are positive for task j: the weight of a rare concept
    moves fastest. Everything else is as in GradNorm.

    Args:
        model: what the norms are taken at, as in GradNorm.
        positives: n_j, (T,) or a sequence of T numbers. A task without positives counts as having
            one.
        samples: N.
        alpha: how strongly slow tasks are pulled up; 0 makes all norms equal.
        lr: the step size of the weights.
        balance_at: for a model with `task_weight`, "shared", "first" or "last", as in GradNorm.
        imbalance_penalty: False drops N / n_j ("without TIP"), which is GradNorm.
        floor: the least a weight can be before scaling.
        normalize: besides TL / Gbar, divide the factors N / n_j by their mean over the tasks. Both
            are constant in a step and only scale `lr`, which then means the same at any scale of
            the losses, any rarity of the concepts, and with or without the penalty. False for the
            equation as it stands.
        initial: L_j(0) as a (T,) tensor, in place of the first losses.
        scope: what the norms are of at a shared layer, as in GradNorm.

    Raises:
        TypeError or ValueError: for positives outside [0, samples] or not one for each task, and
            as GradNorm.

    Examples:
        >>> from fastmtl.nn import FocalLoss, SharedLinear, TaskLinear
        >>> shared, heads = SharedLinear(4, 3, num_tasks=2), TaskLinear(3, 1, num_tasks=2)
        >>> balancer = TaskDynamicBalancing(shared, positives=[20, 300], samples=1000)
        >>> logits = heads(shared(torch.randn(8, 4))).squeeze(2).T  # (N, T)
        >>> loss = FocalLoss()(logits, torch.randint(2, (8, 2)))
        >>> total = balancer.backward(loss)
        >>> round(float(balancer.weights.sum()), 4)
        2.0
    """

    needs: ClassVar[str] = "losses, norms, numbers of positives"

    @takes_old_arguments(where="balance_at")
    def __init__(
        self,
        model: Any,
        positives: Tensor | Sequence[float],
        samples: int,
        alpha: float = 1.0,
        *,
        lr: float = 0.025,
        balance_at: str | None = None,
        imbalance_penalty: bool = True,
        floor: float = 1e-3,
        normalize: bool = True,
        initial: Tensor | None = None,
        scope: str | Sequence[nn.Module | str] = "layer",
    ) -> None:
        super().__init__(
            model,
            alpha,
            lr=lr,
            balance_at=balance_at,
            floor=floor,
            normalize=normalize,
            initial=initial,
            scope=scope,
        )
        need_size("samples", samples)
        counts = torch.as_tensor(positives, dtype=torch.float64, device="cpu")
        need_shape("positives", counts, (self.num_tasks,), "(num_tasks,)")
        if not bool(((counts >= 0) & (counts <= samples)).all()):
            raise ValueError(
                f"positives: expected numbers in [0, samples = {samples}], got {counts.tolist()}"
            )
        if imbalance_penalty:
            factors = samples / counts.clamp(min=1)
            self.factors.copy_(factors / factors.mean() if normalize else factors)
