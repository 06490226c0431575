"""A small run with names that a page must escape, and its report."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fastmtl.data import MultiTaskData, load
from fastmtl.training import TrainConfig, Trainer

NAMES = (
    "<b>sea</b>",
    "sun & sand",
    'a "quote"',
    "</script><script>x()</script>",
    "it's",
    "ß",
    "$x$",
)
SETS = {
    "mtmlan": "synthetic:disaster?clips=60&frames=4&features=6&min_frames=2&missing=0.2",
    "hgfn": "synthetic:disaster-multimodal?clips=60&frames=3&text=4&audio=5&video=6",
}


@pytest.fixture(scope="session")
def make_run(tmp_path_factory):
    """Train a model on samples; by default a synthetic set whose labels have odd names."""

    def make(model: str, data: MultiTaskData | None = None, **options):
        out = tmp_path_factory.mktemp(model)
        data = data or replace(load(SETS[model]), label_names=list(NAMES))
        small = {"epochs": 2, "hidden_size": 4, "attention_size": 3, "device": "cpu", **options}
        Trainer.from_config(TrainConfig(model=model, **small), out, data).fit()
        return out, data

    return make


@pytest.fixture(scope="session", params=sorted(SETS))
def run(request, make_run):
    """Directory and data of a run of each kind of model."""
    return make_run(request.param)


@pytest.fixture
def many_labels():
    """Flat data of two modalities with 300 labels."""
    generator = torch.Generator().manual_seed(0)
    x = {name: torch.randn(80, 3, generator=generator) for name in ("text", "audio")}
    y = (torch.rand(80, 300, generator=generator) < 0.2).float()
    return MultiTaskData.from_arrays(x, y, label_names=[f"label {k}" for k in range(300)])
