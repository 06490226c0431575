"""Importance of each modality of a sample."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastmtl._checks import need_odd, need_size, need_sizes
from fastmtl.nn._module import Layer


class DynamicAttentionUnit(Layer):
    """Importance w_i of each of M vertices, from all of them (HGFN's dynamic attention unit, DAU).

    The vertices of a sample are stacked as an image M x D with one channel. A k x k convolution to
    `channels` channels, LeakyReLU, a 1 x 1 convolution back to one, LeakyReLU, and the mean over
    the features give (B, M).

    The paper gives k = 5 and leaves the rest open. Chosen here: zero padding that keeps the size,
    8 channels, LeakyReLU's usual slope of 0.01, and importances that start around 1: the last bias
    starts at 1, the rest as in `torch.nn.Conv2d`. With a last bias around 0 the importances are the
    mean of LeakyReLU of something small, about 0, on the flat side of its bend for some modalities
    and seeds, from where they hardly come back. The convolution sees which vertices are
    neighbours, so the importances depend on the order of the modalities; keep it fixed.

    Args:
        num_vertices: M.
        channels: channels between the two convolutions.
        kernel_size: k, odd.
        negative_slope: LeakyReLU's.
        device: where the parameters are.
        dtype: that of the parameters.

    Shape:
        - vertices: (B, M, D), for any D.
        - Output: (B, M).

    Raises:
        TypeError or ValueError: for sizes that are no ints of at least 1, an even `kernel_size`,
            which could not keep the size, or vertices of another shape.

    Examples:
        >>> import torch
        >>> from fastmtl.nn import DynamicAttentionUnit
        >>> DynamicAttentionUnit(num_vertices=3)(torch.randn(4, 3, 16)).shape
        torch.Size([4, 3])
    """

    def __init__(
        self,
        num_vertices: int,
        channels: int = 8,
        kernel_size: int = 5,
        negative_slope: float = 0.01,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_vertices = need_size("num_vertices", num_vertices)
        need_size("channels", channels)
        need_odd("kernel_size", kernel_size)
        self.negative_slope = negative_slope
        self.expand = nn.Conv2d(
            1, channels, kernel_size, padding=kernel_size // 2, device=device, dtype=dtype
        )
        self.reduce = nn.Conv2d(channels, 1, 1, device=device, dtype=dtype)
        self.reset_importance()

    def reset_importance(self) -> None:
        """Let the importances start around 1, by the bias of the 1 x 1 convolution."""
        bias: Any = self.reduce.bias
        nn.init.ones_(bias)

    def forward(self, vertices: Tensor) -> Tensor:
        need_sizes("vertices", vertices, ("B", self.num_vertices, "D"))
        image = F.leaky_relu(self.expand(vertices.unsqueeze(1)), self.negative_slope)
        scores = F.leaky_relu(self.reduce(image), self.negative_slope)
        return scores.squeeze(1).mean(-1)
