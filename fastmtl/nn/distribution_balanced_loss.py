"""Distribution-balanced loss of several binary tasks, as a module."""

from __future__ import annotations

import torch
from torch import Tensor

from fastmtl._checks import need_number
from fastmtl.nn.label_weights import log_odds, rebalanced_weights
from fastmtl.nn.multilabel_loss import MultilabelLoss


class DistributionBalancedLoss(MultilabelLoss):
    """Distribution-balanced focal loss, for labels of which some are much rarer than others.

    With z' = z + kappa log(n_j / (N - n_j)) for a task of n_j positives among N samples, an
    element's loss is its `rebalanced_weights` times

        -(1 - p)^gamma log p,            p = sigmoid(z'),               for a positive
        -q^gamma log(1 - q) / neg_scale,  q = sigmoid(neg_scale z'),     for a negative

    (Wu et al. 2020, "Distribution-Balanced Loss for Multi-Label Classification in Long-Tailed
    Datasets", equations 5 to 8). The authors' code divides kappa by `neg_scale`, their paper not.

    Args:
        positives: how many of the training samples are positives of each task, (T,).
        samples: how many training samples there are.
        gamma: focusing parameter, >= 0.
        neg_scale: how much steeper negatives are, > 0.
        kappa: how far the logits are shifted by the log-odds, >= 0.
        alpha: as for `rebalanced_weights`.
        beta: as for `rebalanced_weights`.
        mu: as for `rebalanced_weights`.
        reduction: as for `MultilabelLoss`.

    Shape:
        As for `MultilabelLoss`: logits, targets and, if any, weight (N, T), which multiplies the
        weights of this loss; the output (T,), () or (N, T) by the reduction.

    Raises:
        TypeError or ValueError: as `MultilabelLoss`, `log_odds` and `rebalanced_weights`.

    Examples:
        >>> import torch
        >>> from fastmtl.nn import DistributionBalancedLoss
        >>> loss = DistributionBalancedLoss(torch.tensor([10, 990]), 1000)
        >>> loss(torch.zeros(2, 2), torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
        tensor([0.1407, 0.0717])
    """

    positives: Tensor

    def __init__(
        self,
        positives: Tensor,  # (T,)
        samples: int,
        *,
        gamma: float = 2.0,
        neg_scale: float = 5.0,
        kappa: float = 0.05,
        alpha: float = 0.1,
        beta: float = 10.0,
        mu: float = 0.3,
        reduction: str = "task",
    ) -> None:
        for name, number in (("gamma", gamma), ("kappa", kappa)):
            need_number(name, number)
        super().__init__(
            gamma_pos=gamma,
            gamma_neg=gamma,
            shift=kappa * log_odds(positives, samples),
            neg_scale=neg_scale,
            reduction=reduction,
        )
        self.alpha, self.beta, self.mu = alpha, beta, mu
        self.register_buffer("positives", positives)

    @torch.no_grad()
    def _weights(self, targets: Tensor, weight: Tensor | None) -> Tensor:
        own = rebalanced_weights(
            targets, self.positives, alpha=self.alpha, beta=self.beta, mu=self.mu
        )
        return own if weight is None else own * weight

    def forward(self, logits: Tensor, targets: Tensor, weight: Tensor | None = None) -> Tensor:
        return super().forward(logits, targets, self._weights(targets, weight))
