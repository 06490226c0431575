"""HGFN's network around the fusions that it is compared with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from fastmtl._checks import need_choice
from fastmtl.models.fusion_model import FusionModel
from fastmtl.models.fusions import ConcatFusion, GraphFusion, TensorFusion
from fastmtl.models.pairs import ParameterPair
from fastmtl.models.torch_twins import TorchFusionModel

_FUSIONS = {"cfc": ConcatFusion, "matf": TensorFusion, "gfn": GraphFusion}


class FusionBaseline(FusionModel):
    """HGFN with another fusion of the modalities, and all else the same.

    Arguments that are not named here are those of `HGFN`.

    Args:
        fusion: "cfc", concatenation; "matf", multi-agent tensor fusion (Zhao et al. 2019); "gfn",
            the graph fusion network (Mai et al. 2020). How the last two are adapted to vectors
            stands at `fastmtl.models.fusions`.
        interaction: whether the tasks exchange features before their last layer, by MTI-Net's unit
            (`fastmtl.nn.TaskInteraction`).

    Shape:
        As in `HGFN`.

    Raises:
        ValueError: for another fusion, and as `HGFN`.

    Examples:
        >>> import torch
        >>> from fastmtl.models import FusionBaseline
        >>> model = FusionBaseline({"text": 100, "video": 16}, num_tasks=3, fusion="gfn")
        >>> model({"text": torch.randn(4, 100), "video": torch.randn(4, 16)}).shape
        torch.Size([4, 3])
    """

    fusion: nn.Module

    def __init__(
        self,
        modalities: Mapping[str, int],
        num_tasks: int,
        hidden_size: int = 128,
        *,
        fusion: str = "cfc",
        sequence_modalities: Iterable[str] = (),
        group_sizes: Sequence[int] | None = None,
        head_size: int = 64,
        gru_layers: int = 1,
        attention_size: int = 64,
        interaction: bool = False,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        need_choice("fusion", fusion, tuple(_FUSIONS))
        super().__init__(
            _FUSIONS[fusion],
            modalities,
            num_tasks,
            hidden_size,
            sequence_modalities=sequence_modalities,
            group_sizes=group_sizes,
            head_size=head_size,
            gru_layers=gru_layers,
            attention_size=attention_size,
            interaction=interaction,
            dropout=dropout,
            device=device,
            dtype=dtype,
        )
        self._config["fusion"] = fusion

    def to_torch(self) -> TorchFusionModel:
        # The fusion is of torch.nn layers already.
        return self._copied_to(self._around(deepcopy(self.fusion)))

    def is_twin(self, twin: nn.Module) -> bool:
        return isinstance(twin, TorchFusionModel) and type(twin.fusion) is type(self.fusion)

    def _fusion_pairs(self, fusion: Any) -> list[ParameterPair]:
        own = zip(self.fusion.parameters(), fusion.parameters(), strict=True)
        return [ParameterPair(ours, (), twin) for ours, twin in own]
