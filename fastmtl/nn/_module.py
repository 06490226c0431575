"""What torch leaves untyped about modules, and indices that outlive `to_empty`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self


class Layer(nn.Module):
    """A module whose call is known to give a tensor."""

    __call__: Callable[..., Tensor]


class Indices(nn.Module):
    """Indices that follow from the sizes of a layer, and move with it.

    `to_empty`, which gives a module that was built on the meta device its memory, leaves no
    parameter and no buffer as it was; these are written anew.
    """

    values: Tensor

    def __init__(
        self, indices: Sequence[int] | Sequence[Sequence[int]], device: torch.device | str | None
    ) -> None:
        super().__init__()
        self._indices = indices
        self.register_buffer("values", self._on(device), persistent=False)

    def _on(self, device: torch.device | str | None) -> Tensor:
        return torch.tensor(self._indices, dtype=torch.int64, device=device)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self.values = self._on(self.values.device)
        return self


def call(function: Callable[..., Any], *arguments: Any) -> Tensor:
    """The tensor that a torch module or an autograd function gives, whose calls have no type."""
    output: Tensor = function(*arguments)
    return output
