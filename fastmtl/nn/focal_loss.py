"""Focal loss of several binary tasks, as a module."""

from __future__ import annotations

from torch import Tensor, nn

from fastmtl import ops
from fastmtl._checks import need_number, need_size, need_sizes
from fastmtl._deprecation import takes_old_arguments


class FocalLoss(nn.Module):
    """Focal loss of T binary tasks, one mean over the present labels for each.

    The module form of `fastmtl.ops.focal_loss`: -(1 - p)^gamma log p with p = sigmoid(z) for a
    positive label and sigmoid(-z) for a negative one (Lin et al. 2017, equation 4).

    Args:
        gamma: focusing parameter, >= 0; 0 is binary cross-entropy.
        pos_weight: factors (T,) of the positives' losses; a buffer that moves with the module.
        reduction: "task" for the mean of each task, "sum" or "mean" over all present labels, "none"
            for every element's loss.
        num_tasks: deprecated; the number of tasks is that of the logits.

    Shape:
        - logits: (N, T).
        - targets: (N, T) of 0, 1 or NaN, which is a missing label.
        - mask: (N, T) bool, True where a label is present, or None.
        - Output: (T,), 0 for a task without a label; () for "sum" and "mean", (N, T) for "none".
          float64 for float64 logits, otherwise float32.

    Raises:
        TypeError or ValueError: for a `gamma` that is no number >= 0, a `pos_weight` that is no
            (T,) tensor; in a call, what the op raises.

    Examples:
        >>> import torch
        >>> from fastmtl.nn import FocalLoss
        >>> loss = FocalLoss(gamma=2.0)
        >>> loss(torch.zeros(3, 2), torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, torch.nan]]))
        tensor([0.1733, 0.1733])
    """

    pos_weight: Tensor | None

    @takes_old_arguments("num_tasks", "gamma", "pos_weight", dropped=("num_tasks",))
    def __init__(
        self,
        *,
        gamma: float = 2.0,
        pos_weight: Tensor | None = None,
        reduction: str = "task",
        num_tasks: int | None = None,
    ) -> None:
        super().__init__()
        self.num_tasks = None if num_tasks is None else need_size("num_tasks", num_tasks)
        need_number("gamma", gamma)
        self.gamma = gamma
        self.reduction = reduction
        if pos_weight is not None:
            need_sizes("pos_weight", pos_weight, ("T" if num_tasks is None else num_tasks,))
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, logits: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.num_tasks is not None:
            need_sizes("logits", logits, ("N", self.num_tasks))
        return ops.focal_loss(
            logits,
            targets,
            gamma=self.gamma,
            mask=mask,
            pos_weight=self.pos_weight,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        return f"gamma={self.gamma}, reduction={self.reduction!r}"
