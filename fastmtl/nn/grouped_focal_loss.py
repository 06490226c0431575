"""Focal loss of several multi-class tasks, as a module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from fastmtl import ops
from fastmtl._checks import need_int, need_number, need_size, need_sizes
from fastmtl._deprecation import deprecated, takes_old_arguments


class GroupedFocalLoss(nn.Module):
    """Focal loss of G multi-class tasks, one mean over the present labels for each.

    The module form of `fastmtl.ops.grouped_focal_loss`: -(1 - p)^gamma log p with p the softmax
    probability of the label among the classes of its task (Lin et al. 2017, equation 4).

    Args:
        group_sizes: number of classes C_g >= 2 of each task; task g owns the next C_g logits.
        gamma: focusing parameter, >= 0; 0 is cross-entropy.
        weight: factors (sum C,) of the samples of each class; a buffer that moves with the module.
            A mean is over the number of samples, not of weights.
        ignore_index: the target that stands for a missing label.
        reduction: "task" for the mean of each task, "sum" or "mean" over all present labels, "none"
            for every element's loss.

    Shape:
        - logits: (N, sum C).
        - targets: (N, G) int64, counted from 0 within the group, or `ignore_index`.
        - Output: (G,), 0 for a task without a label; () for "sum" and "mean", (N, G) for "none".
          float64 for float64 logits, otherwise float32.

    Raises:
        TypeError or ValueError: for group sizes below 2, a `gamma` that is no number >= 0, a
            `weight` that is no (sum C,) tensor, an `ignore_index` that is no int, logits that are
            not (N, sum C); in a call, what the op raises.

    Examples:
        >>> import torch
        >>> from fastmtl.nn import GroupedFocalLoss
        >>> loss = GroupedFocalLoss([3, 2])
        >>> loss(torch.zeros(4, 5), torch.tensor([[0, 1], [2, 0], [1, -100], [0, 1]]))
        tensor([0.4883, 0.1733])
    """

    weight: Tensor | None

    @takes_old_arguments("gamma", "class_weight", class_weight="weight")
    def __init__(
        self,
        group_sizes: Sequence[int],
        *,
        gamma: float = 2.0,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "task",
    ) -> None:
        super().__init__()
        self.group_sizes = tuple(need_size("group_sizes", size, 2) for size in group_sizes)
        if not self.group_sizes:
            raise ValueError("group_sizes: expected at least one group, got none")
        need_number("gamma", gamma)
        self.gamma = gamma
        self.ignore_index = need_int("ignore_index", ignore_index)
        self.reduction = reduction
        if weight is not None:
            need_sizes("weight", weight, (sum(self.group_sizes),))
        self.register_buffer("weight", weight)
        self.register_load_state_dict_pre_hook(_rename_class_weight)

    @property
    def class_weight(self) -> Tensor | None:
        """`weight` by its old name."""
        deprecated("GroupedFocalLoss.class_weight is now weight")
        return self.weight

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        need_sizes("logits", logits, ("N", sum(self.group_sizes)))
        return ops.grouped_focal_loss(
            logits,
            targets,
            self.group_sizes,
            gamma=self.gamma,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        return (
            f"group_sizes={self.group_sizes}, gamma={self.gamma}, "
            f"ignore_index={self.ignore_index}, reduction={self.reduction!r}"
        )


def _rename_class_weight(
    module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any
) -> None:
    """Take the buffer of a state dict by its old name."""
    if f"{prefix}class_weight" in state_dict:
        state_dict[f"{prefix}weight"] = state_dict.pop(f"{prefix}class_weight")
