"""Focal losses of several tasks, as modules."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fastmtl import ops
from fastmtl._checks import need_number, need_size, need_sizes


class FocalLoss(nn.Module):
    """Focal loss of T binary tasks, one mean over the present labels for each.

    The module form of `fastmtl.ops.focal_loss` with `reduction="task"`. `pos_weight` (T,) scales
    the positives; it is a buffer and moves with the module.

    The input is logits (N, T), targets (N, T) of 0, 1 or NaN (missing) and optionally a bool mask
    (N, T), True where a label is present; the output is (T,), 0 for a task with no label.

    Raises ValueError where logits are not (N, num_tasks), and what the op raises.

    Example:
        >>> import torch
        >>> from fastmtl.nn import FocalLoss
        >>> loss = FocalLoss(num_tasks=2)
        >>> loss(torch.zeros(3, 2), torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, torch.nan]]))
        tensor([0.1733, 0.1733])
    """

    pos_weight: Tensor | None

    def __init__(
        self, num_tasks: int, gamma: float = 2.0, pos_weight: Tensor | None = None
    ) -> None:
        super().__init__()
        self.num_tasks = need_size("num_tasks", num_tasks)
        need_number("gamma", gamma)
        self.gamma = gamma
        if pos_weight is not None:
            need_sizes("pos_weight", pos_weight, (num_tasks,))
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, logits: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
        need_sizes("logits", logits, ("N", self.num_tasks))
        return ops.focal_loss(
            logits, targets, gamma=self.gamma, mask=mask, pos_weight=self.pos_weight
        )

    def extra_repr(self) -> str:
        return f"num_tasks={self.num_tasks}, gamma={self.gamma}"


class GroupedFocalLoss(nn.Module):
    """Focal loss of G multi-class tasks, one mean over the present labels for each.

    The module form of `fastmtl.ops.grouped_focal_loss` with `reduction="task"`. `group_sizes` gives
    the number of classes C_g >= 2 of each task; `class_weight` (sum C,) scales each class's
    samples; it is a buffer and moves with the module.

    The input is logits (N, sum C) and int64 targets (N, G), -100 where missing; the output is (G,).

    Raises ValueError where logits are not (N, sum C), and what the op raises.

    Example:
        >>> import torch
        >>> from fastmtl.nn import GroupedFocalLoss
        >>> loss = GroupedFocalLoss([3, 2])
        >>> loss(torch.zeros(4, 5), torch.tensor([[0, 1], [2, 0], [1, -100], [0, 1]]))
        tensor([0.4883, 0.1733])
    """

    class_weight: Tensor | None

    def __init__(
        self, group_sizes: Sequence[int], gamma: float = 2.0, class_weight: Tensor | None = None
    ) -> None:
        super().__init__()
        self.group_sizes = tuple(need_size("group_sizes", size, 2) for size in group_sizes)
        if not self.group_sizes:
            raise ValueError("group_sizes: expected at least one group, got none")
        need_number("gamma", gamma)
        self.gamma = gamma
        if class_weight is not None:
            need_sizes("class_weight", class_weight, (sum(self.group_sizes),))
        self.register_buffer("class_weight", class_weight)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        need_sizes("logits", logits, ("N", sum(self.group_sizes)))
        return ops.grouped_focal_loss(
            logits, targets, self.group_sizes, gamma=self.gamma, class_weight=self.class_weight
        )

    def extra_repr(self) -> str:
        return f"group_sizes={self.group_sizes}, gamma={self.gamma}"
