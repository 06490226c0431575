"""What a trained model looked at: attention over time, and the weights of its fusion graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastmtl.training.batches import Batch, Batches
from fastmtl.training.forward import in_batches


def attention(
    model: nn.Module,
    batches: Batches,
    rows: Tensor,  # (n,)
    batch_size: int,
) -> dict[str, Tensor]:
    """Attention by modality: (n, T, L) where each task has its own, else (n, L).

    Raises ValueError if the model has none.
    """
    attend: Any = _method(model, "attention", "attention over time")
    single = [] if batches.multimodal else batches.names
    parts = in_batches(model, lambda batch: batch.call(attend), batches, rows, batch_size)
    return _joined([{single[0]: part} if single else part for part in parts])


def fusion_weights(
    model: nn.Module,
    batches: Batches,
    rows: Tensor,  # (n,)
    batch_size: int,
) -> tuple[dict[str, Tensor], ...]:
    """The importances (n,) by modality, then the weights of each level's edges by name.

    Raises ValueError if the model has no fusion graph.
    """
    weigh: Any = _method(model, "fusion_weights", "a fusion graph")

    def named(batch: Batch) -> Any:
        return batch.call(weigh, named=True)

    levels = zip(*in_batches(model, named, batches, rows, batch_size), strict=True)
    return tuple(_joined(list(parts)) for parts in levels)


def shows(model: nn.Module, name: str) -> bool:
    """Whether a model can be asked for "attention" or "fusion_weights"."""
    method = getattr(model, name, None)
    # A module of this name is a layer.
    return method is not None and not isinstance(method, nn.Module)


def _method(model: nn.Module, name: str, what: str) -> Any:
    if not shows(model, name):
        raise ValueError(f"model: expected one with {what}, got {type(model).__name__}")
    return getattr(model, name)


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]).float().cpu() for name in parts[0]}
