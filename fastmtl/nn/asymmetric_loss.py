"""Asymmetric loss of several binary tasks, as a module."""

from __future__ import annotations

from fastmtl.nn.multilabel_loss import MultilabelLoss
from fastmtl.ops.multilabel_loss import ByTask


class AsymmetricLoss(MultilabelLoss):
    """Asymmetric loss, for labels most of which are negative; one mean for each task.

    With p = sigmoid(z) and p_m = max(p - clip, 0), an element's loss is

        -(1 - p)^gamma_pos log p            for a positive
        -p_m^gamma_neg log(1 - p_m)         for a negative

    (Ridnik et al. 2021, "Asymmetric Loss for Multi-Label Classification", equation 7, with the
    values of its section 4). The authors sum over all labels (`reduction="sum"`), and their code
    trains with `detach_focus=True`.

    Args:
        gamma_neg: focusing parameter of negatives, >= 0, one or (T,).
        gamma_pos: likewise of positives.
        clip: probability up to which a negative costs nothing, in [0, 1).
        smoothing: as for `MultilabelLoss`.
        pos_weight: as for `MultilabelLoss`.
        neg_weight: as for `MultilabelLoss`.
        detach_focus: as for `MultilabelLoss`.
        reduction: as for `MultilabelLoss`.

    Shape:
        As for `MultilabelLoss`: logits, targets and, if any, weight (N, T); the output (T,), () or
        (N, T) by the reduction.

    Raises:
        TypeError or ValueError: as `MultilabelLoss`.

    Examples:
        >>> import torch
        >>> from fastmtl.nn import AsymmetricLoss
        >>> loss = AsymmetricLoss()
        >>> loss(torch.tensor([[2.0, -3.0], [-1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        tensor([0.0078, 0.1733])
    """

    def __init__(
        self,
        *,
        gamma_neg: ByTask = 4.0,
        gamma_pos: ByTask = 1.0,
        clip: float = 0.05,
        smoothing: float = 0.0,
        pos_weight: ByTask = 1.0,
        neg_weight: ByTask = 1.0,
        detach_focus: bool = False,
        reduction: str = "task",
    ) -> None:
        super().__init__(
            gamma_pos=gamma_pos,
            gamma_neg=gamma_neg,
            clip=clip,
            smoothing=smoothing,
            pos_weight=pos_weight,
            neg_weight=neg_weight,
            detach_focus=detach_focus,
            reduction=reduction,
        )
