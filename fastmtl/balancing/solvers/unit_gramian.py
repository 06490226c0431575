"""The Gramian of the tasks' gradients, and that of their directions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class UnitGramian:
    """What the methods solve with: float64, whatever the Gramian was computed in.

    The directions u_j = g_j / ||g_j|| make problems whose entries are of size 1 however far the
    norms are apart. A task whose gradient is 0 has no direction: it is not `present`, its rows and
    columns of `products` and `cosines` are 0.
    """

    products: Tensor  # S_ij = <g_i, g_j>, (T, T)
    cosines: Tensor  # K_ij = <u_i, u_j>, (T, T)
    norms: Tensor  # (T,)
    inverse_norms: Tensor  # (T,), 0 for 0
    present: Tensor  # (T,) bool
    # The relative error that sums of T products can have.
    rounding: float

    @classmethod
    def of(cls, gramian: Tensor) -> UnitGramian:
        """That of a Gramian (T, T), finite, float32 or float64."""
        rounding = len(gramian) * torch.finfo(gramian.dtype).eps
        products = gramian.double()
        present = products.diagonal() > 0
        norms = torch.where(present, products.diagonal(), 0).sqrt()
        inverse_norms = torch.where(present, 1 / norms, 0)
        cosines = inverse_norms * products * inverse_norms.unsqueeze(1)
        return cls(products, cosines, norms, inverse_norms, present, rounding)

    @property
    def ridge(self) -> float:
        """What is added to the diagonal of K so that rounding errors cannot make it indefinite."""
        return max(1e-12, 4 * self.rounding)

    @property
    def shares(self) -> Tensor:
        """1 / P for each of the P present tasks, (T,): the weights of the mean gradient."""
        return self.present.double() / self.present.sum().clamp(min=1)

    @property
    def regular(self) -> Tensor:
        """K with the ridge, and 1 on the diagonal for tasks that are not present: definite."""
        return self.cosines + torch.diag(torch.where(self.present, self.ridge, 1.0))
