"""The loss of multi-label classification, as a module."""

from __future__ import annotations

from torch import Tensor, nn

from fastmtl import ops
from fastmtl._checks import need_choice, need_flag, need_sizes
from fastmtl.backends.losses import MultilabelOptions
from fastmtl.ops.focal_loss import REDUCTIONS
from fastmtl.ops.multilabel_loss import ByTask, check_options


class MultilabelLoss(nn.Module):
    """The losses of multi-label classification, one mean over the present labels of each task.

    The module form of `fastmtl.ops.multilabel_loss`. With z = logit + shift, v = 1 - sigmoid(z) for
    a positive and v = max(sigmoid(neg_scale z) - clip, 0) for a negative, an element's loss is

        pos_weight v^gamma_pos (-log(1 - v) + poly v)               for y = 1
        neg_weight v^gamma_neg (-log(1 - v) + poly v) / neg_scale   for y = 0

    Its options are the losses of the field, alone or together: focal loss with alpha
    (`gamma_pos` = `gamma_neg`, `pos_weight` = alpha, `neg_weight` = 1 - alpha; Lin et al. 2017,
    equation 5), Poly-1 (`poly`; Leng et al. 2022, equation 3), label smoothing (Szegedy et al.
    2016), logit adjustment (`shift`; Menon et al. 2021, equation 10), class-balanced weights
    (`fastmtl.nn.class_balanced_weights`). `AsymmetricLoss` and `DistributionBalancedLoss` have the
    options of their papers.

    Args:
        gamma_pos: focusing parameter of positives, >= 0, one or (T,).
        gamma_neg: likewise of negatives.
        clip: probability up to which a negative costs nothing, in [0, 1).
        poly: coefficient of the first term of the loss's series, added to it.
        smoothing: replaces y by y + smoothing (1/2 - y), in [0, 1).
        pos_weight: factor of positives, >= 0, one or (T,).
        neg_weight: likewise of negatives.
        shift: added to the logits, one or (T,).
        neg_scale: how steeply a negative's probability rises with its logit, > 0.
        detach_focus: take v^gamma as a constant in the gradient.
        reduction: "task" for the mean of each task, "sum" or "mean" over all present labels, "none"
            for every element's loss.

    Numbers of every task are buffers that move with the module and are saved with it.

    Shape:
        - logits: (N, T).
        - targets: (N, T) from 0 to 1, or NaN, which is a missing label.
        - weight: (N, T), bool or factors; 0 or False is a missing label. Or None.
        - Output: (T,), 0 for a task without a label; () for "sum" and "mean", (N, T) for "none".
          float64 for float64 logits, otherwise float32.

    Raises:
        TypeError or ValueError: for an option that is no number of its range, or no (T,) tensor; in
            a call, what the op raises.

    Examples:
        >>> import torch
        >>> from fastmtl.nn import MultilabelLoss
        >>> loss = MultilabelLoss(gamma_pos=2.0, gamma_neg=2.0, pos_weight=0.25, neg_weight=0.75)
        >>> loss(torch.zeros(3, 2), torch.tensor([[0.0, 1.0], [1.0, 0.5], [0.0, torch.nan]]))
        tensor([0.1011, 0.0650])
    """

    def __init__(
        self,
        *,
        gamma_pos: ByTask = 0.0,
        gamma_neg: ByTask = 0.0,
        clip: float = 0.0,
        poly: float = 0.0,
        smoothing: float = 0.0,
        pos_weight: ByTask = 1.0,
        neg_weight: ByTask = 1.0,
        shift: ByTask = 0.0,
        neg_scale: float = 1.0,
        detach_focus: bool = False,
        reduction: str = "task",
    ) -> None:
        super().__init__()
        numbers = (gamma_pos, gamma_neg, pos_weight, neg_weight, shift)
        others = (clip, poly, smoothing, neg_scale)
        same = [1.0 if isinstance(number, Tensor) else number for number in numbers]
        check_options(MultilabelOptions._make([*same, *others]))
        for name, number in zip(MultilabelOptions._fields, (*numbers, *others), strict=True):
            if isinstance(number, Tensor):
                need_sizes(name, number, ("T",))
                self.register_buffer(name, number)
            else:
                setattr(self, name, float(number))
        self.detach_focus = need_flag("detach_focus", detach_focus)
        need_choice("reduction", reduction, REDUCTIONS)
        self.reduction = reduction

    def forward(self, logits: Tensor, targets: Tensor, weight: Tensor | None = None) -> Tensor:
        return ops.multilabel_loss(
            logits,
            targets,
            weight=weight,
            detach_focus=self.detach_focus,
            reduction=self.reduction,
            **{name: getattr(self, name) for name in MultilabelOptions._fields},
        )

    def extra_repr(self) -> str:
        plain = MultilabelOptions()
        numbers = {name: getattr(self, name) for name in MultilabelOptions._fields}
        shown = [
            f"{name}=..." if isinstance(number, Tensor) else f"{name}={number:g}"
            for name, number in numbers.items()
            if isinstance(number, Tensor) or number != getattr(plain, name)
        ]
        if self.detach_focus:
            shown.append("detach_focus=True")
        return ", ".join([*shown, f"reduction={self.reduction!r}"])
