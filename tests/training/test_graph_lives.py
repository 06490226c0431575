"""HGFN's graph goes on to say something of each sample once it is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import fastmtl.data
from fastmtl.data import MultiTaskData
from fastmtl.models import HGFN
from fastmtl.training import TrainConfig, Trainer, preset

SETS = "synthetic:disaster-multimodal?clips=300&frames=4"


def four_modalities() -> MultiTaskData:
    """Labels that show in one modality each, and one in how two go together."""
    generator = torch.Generator().manual_seed(0)
    x = {name: torch.randn(400, 12, generator=generator) for name in "abcd"}
    y = torch.stack([each[:, 0] > 0.5 for each in x.values()], 1)
    both = (x["a"][:, 1] * x["b"][:, 1] > 0).unsqueeze(1)
    return MultiTaskData.from_arrays(x, torch.cat([y, both], 1).float())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["default", "paper"])
@pytest.mark.parametrize(
    "data",
    [SETS, f"{SETS}&seed=1&missing=0.2", None],
    ids=["three modalities", "missing labels", "four modalities"],
)
def test_importances_and_edge_weights_after_training(
    tmp_path: Path, data: str | None, name: str
) -> None:
    options: dict[str, Any] = {"hidden_size": 32, "epochs": 12, "patience": 12, "batch_size": 20}
    options |= {"model": "hgfn", "balancer": "equal", "device": "cpu", "monitor": "map"}
    loaded = four_modalities() if data is None else fastmtl.data.load(data)
    trainer = Trainer.from_config(TrainConfig(**{**preset(name), **options}), tmp_path, loaded)
    trainer.fit()
    batch: Any = next(iter(trainer.batches(trainer.rows["val"], 1000)))
    assert isinstance(trainer.model, HGFN)
    importance, *edge_weights = trainer.model.eval().fusion_weights(batch.x, batch.lengths)
    assert float(importance.mean(0).min()) > 0.3
    assert float(importance.mean(0).max()) < 3
    spread = [float((each.std(0) / each.mean(0)).mean()) for each in edge_weights]
    least = 0.05 if name == "default" else 0.002
    assert min(spread) > least, spread
