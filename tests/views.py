"""Views of the values of a tensor: with strides of all kinds, and at an address of no alignment."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def other_than(x: Tensor) -> Tensor:
    """Values that a view must not reach."""
    return ~x if x.dtype == torch.bool else x + 1


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: (
        x.permute(*range(x.dim())[::-1]).contiguous().permute(*range(x.dim())[::-1])
    ),
    "interleaved": lambda x: torch.stack([other_than(x), x], -1)[..., 1],
    "padded": lambda x: torch.cat([x, other_than(x)], -1)[..., : x.shape[-1]],
    "every-other": lambda x: torch.stack([x, other_than(x)], 1)[:, 0],
    "offset": lambda x: torch.cat([x.flatten()[:1], x.flatten()])[1:].view(x.shape),
}
