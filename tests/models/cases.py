"""The models in the configurations that their common tests run over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastmtl.models import CMLC, HGFN, MTMLAN, FusionBaseline

STEPS = 6


class Case(NamedTuple):
    build: Callable[[], Any]
    features: dict[str, int]  # of each modality; the one modality of MTMLAN is ""
    sequences: tuple[str, ...]
    outputs: int

    def inputs(self, batch: int = 4, steps: int = STEPS, dtype: torch.dtype = torch.float32) -> Any:
        """A batch of random inputs."""
        x = {
            name: torch.randn(batch, *((steps,) if name in self.sequences else ()), size)
            for name, size in self.features.items()
        }
        return cast(x.get("", x), dtype)

    def lengths(self, batch: int = 4, steps: int = STEPS) -> Tensor | None:
        """Lengths from 1 to `steps`, the first of them `steps`; None without a sequence."""
        if not self.sequences:
            return None
        lengths = torch.randint(1, steps + 1, (batch,))
        lengths[:1] = steps
        return lengths


def cast(x: Any, dtype: torch.dtype) -> Any:
    """An input's tensors in another dtype."""
    if isinstance(x, Tensor):
        return x.to(dtype)
    return {name: value.to(dtype) for name, value in x.items()}


def mtmlan(**arguments: Any) -> MTMLAN:
    return MTMLAN(5, 3, hidden_size=4, attention_size=3, **arguments)


def hgfn(features: dict[str, int], **arguments: Any) -> HGFN:
    return HGFN(features, 3, hidden_size=6, head_size=5, attention_size=3, **arguments)


def baseline(fusion: str, features: dict[str, int], **arguments: Any) -> FusionBaseline:
    sizes = {"hidden_size": 6, "head_size": 5, "attention_size": 3}
    return FusionBaseline(features, 3, fusion=fusion, **sizes, **arguments)


TWO = {"text": 7, "video": 4}
THREE = {"text": 7, "video": 4, "keys": 3}
FOUR = {"text": 7, "video": 4, "keys": 3, "a.b": 1}

CASES = {
    "mtmlan": Case(mtmlan, {"": 5}, ("",), 3),
    "mtmlan-shared": Case(lambda: mtmlan(shared_features=6), {"": 5}, ("",), 3),
    "mtmlan-shared-gru": Case(lambda: mtmlan(shared_gru=True), {"": 5}, ("",), 3),
    "mtmlan-1-layer": Case(lambda: mtmlan(num_layers=1), {"": 5}, ("",), 3),
    "mtmlan-groups": Case(lambda: mtmlan(group_sizes=[1, 3, 2]), {"": 5}, ("",), 6),
    "hgfn-1": Case(lambda: hgfn({"text": 7}), {"text": 7}, (), 3),
    "hgfn-2": Case(
        lambda: hgfn(TWO, sequence_modalities=["video"], gru_layers=2), TWO, ("video",), 3
    ),
    "hgfn-3": Case(lambda: hgfn(THREE), THREE, (), 3),
    "hgfn-3-groups": Case(
        lambda: hgfn(
            THREE, sequence_modalities=("video", "text"), group_sizes=[2, 3, 5], theta=0.2
        ),
        THREE,
        ("video", "text"),
        10,
    ),
    "hgfn-2-mixed": Case(lambda: hgfn(TWO, group_sizes=[1, 1, 4]), TWO, (), 6),
    "hgfn-3-pairs": Case(lambda: hgfn(THREE, share_pairs=False), THREE, (), 3),
    "hgfn-3-norms": Case(lambda: hgfn(THREE, level_norm=True, similarity_norm=True), THREE, (), 3),
    "hgfn-3-residual": Case(lambda: hgfn(THREE, residual=True), THREE, (), 3),
    "hgfn-2-all": Case(
        lambda: hgfn(TWO, level_norm=True, similarity_norm=True, residual=True), TWO, (), 3
    ),
    "hgfn-4-level-2": Case(lambda: hgfn(FOUR, max_level=2), FOUR, (), 3),
    "hgfn-3-interaction": Case(lambda: hgfn(THREE, interaction=True), THREE, (), 3),
    "cmlc": Case(lambda: CMLC(5, 3, hidden_size=4), {"": 5}, ("",), 3),
    "cmlc-groups": Case(
        lambda: CMLC(5, 3, hidden_size=4, group_sizes=[1, 2, 4]), {"": 5}, ("",), 7
    ),
    "cfc-2": Case(lambda: baseline("cfc", TWO, group_sizes=[2, 3, 2]), TWO, (), 7),
    "matf-3": Case(
        lambda: baseline("matf", THREE, sequence_modalities=["video"]), THREE, ("video",), 3
    ),
    "gfn-3": Case(lambda: baseline("gfn", THREE), THREE, (), 3),
    "gfn-4-interaction": Case(lambda: baseline("gfn", FOUR, interaction=True), FOUR, (), 3),
}
