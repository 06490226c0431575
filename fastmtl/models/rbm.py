"""Restricted Boltzmann machines by contrastive divergence, to pretrain a layer of a network."""

from __future__ import annotations

import torch
from torch import Tensor


class RBM:
    """A restricted Boltzmann machine with binary hidden units.

    P(h = 1 | v) = sigmoid(W v + b). The visible units are binary, with P(v = 1 | h) =
    sigmoid(W^T h + a), or with `gaussian` real, v | h ~ N(W^T h + a, 1): standardise such data.
    `weight` (H, V) is drawn from N(0, 0.01^2), the biases start at 0.

    Examples:
        >>> import torch
        >>> rbm = RBM(visible=4, hidden=3, gaussian=True)
        >>> rbm.step(torch.randn(10, 4), lr=0.01, momentum=0.5)
        >>> rbm.hidden(torch.randn(2, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self, visible: int, hidden: int, *, gaussian: bool = False, device: str = "cpu"
    ) -> None:
        self.gaussian = gaussian
        self.weight = 0.01 * torch.randn(hidden, visible, device=device)
        self.visible_bias = torch.zeros(visible, device=device)
        self.hidden_bias = torch.zeros(hidden, device=device)
        self._velocity = [torch.zeros_like(p) for p in self._parameters()]

    def hidden(self, v: Tensor) -> Tensor:
        """P(h = 1 | v), (N, H)."""
        return torch.addmm(self.hidden_bias, v, self.weight.t()).sigmoid_()

    def visible(self, h: Tensor) -> Tensor:
        """The mean of v given h, (N, V)."""
        mean = torch.addmm(self.visible_bias, h, self.weight)
        return mean if self.gaussian else mean.sigmoid_()

    def gradient(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """CD-1's estimate of the ascent direction of log P(v), mean over v (N, V).

        <v h> of the data minus <v h> after one Gibbs step. The hidden units are sampled, once; the
        reconstruction and its hidden units are means, which lessens the noise (Hinton 2010,
        section 3).
        """
        positive = self.hidden(v)
        reconstruction = self.visible(positive.bernoulli())
        negative = self.hidden(reconstruction)
        count = len(v)
        return (
            (positive.t() @ v - negative.t() @ reconstruction) / count,
            (v - reconstruction).mean(0),
            (positive - negative).mean(0),
        )

    def step(self, v: Tensor, lr: float, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        """One update from a mini-batch v (N, V)."""
        gradients = self.gradient(v)
        if weight_decay:
            gradients[0].sub_(self.weight, alpha=weight_decay)
        for parameter, velocity, gradient in zip(
            self._parameters(), self._velocity, gradients, strict=True
        ):
            velocity.mul_(momentum).add_(gradient, alpha=lr)
            parameter.add_(velocity)

    def reconstruction_error(self, v: Tensor) -> float:
        """Mean squared difference of v and its reconstruction from P(h = 1 | v)."""
        return float((v - self.visible(self.hidden(v))).square().mean())

    def _parameters(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.weight, self.visible_bias, self.hidden_bias
