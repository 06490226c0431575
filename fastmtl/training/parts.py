"""A batch in parts, one after the other, for models whose activations of all would not fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fastmtl.data.lengths import Lengths, lengths_at
from fastmtl.nn import SharedLinear, TaskFork
from fastmtl.training.batches import Features


class InParts(nn.Module):
    """A model called as `model(x, lengths)` that keeps the activations of one part at a time.

    Every part but the last is computed once more in the backward pass (Chen et al. 2016, "Training
    deep nets with sublinear memory cost"), with the dropout that it had. The logits are those of
    the whole batch, and so are losses, weights of tasks and norms of their gradients, which an
    accumulation of the parts' gradients could not give: they depend on all parts at once.

    Args:
        model: the model.
        parts: of a batch; one of fewer samples has a part for each.

    Raises:
        ValueError: for more than one part of a model whose shared layer combines the tasks'
            gradients, as it needs those of all samples together.

    Examples:
        >>> class Sum(nn.Linear):
        ...     def forward(self, x, lengths=None):
        ...         return super().forward(x)
        >>> InParts(Sum(3, 2), 4)(torch.ones(10, 3)).shape
        torch.Size([10, 2])
    """

    def __init__(self, model: nn.Module, parts: int) -> None:
        super().__init__()
        forks = (each for each in model.modules() if isinstance(each, SharedLinear | TaskFork))
        if parts > 1 and any(fork.weighting is not None for fork in forks):
            raise ValueError(
                "accumulate: expected 1 with a balancer that combines the tasks' gradients, which "
                f"needs those of all samples of a step at once, got {parts}"
            )
        self.model = model
        self.parts = parts

    def forward(
        self, x: Features, lengths: Lengths = None, present: dict[str, Tensor] | None = None
    ) -> Tensor:
        """Logits (B, T)."""
        *parts, last = _split(x, lengths, present, self.parts)
        logits = [checkpoint(self.model, *part, use_reentrant=False) for part in parts]
        return torch.cat([*logits, self.model(*last)])


def _split(
    x: Features, lengths: Lengths, present: dict[str, Tensor] | None, parts: int
) -> Iterator[tuple[Any, ...]]:
    """Parts of samples that differ by one in size at most; what is not there is left out."""
    rows = len(x) if isinstance(x, Tensor) else len(next(iter(x.values())))
    for index in torch.arange(rows).tensor_split(min(parts, rows)):
        part = slice(int(index[0]), int(index[-1]) + 1)
        taken = x[part] if isinstance(x, Tensor) else {k: value[part] for k, value in x.items()}
        told = () if present is None else ({k: each[part] for k, each in present.items()},)
        yield taken, lengths_at(lengths, part), *told
