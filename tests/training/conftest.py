"""Small runs that finish in a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fastmtl.training import TrainConfig, preset

SEQUENCES = "synthetic:disaster?clips=60&frames=4&features=6&min_frames=2&missing=0.2"
MODALITIES = "synthetic:disaster-multimodal?clips=60&frames=3&text=4&audio=5&video=6"
CLASSES = "synthetic:crisis?posts=100&text=5&image=4&missing=0.1"


@pytest.fixture
def make_config() -> Callable[..., TrainConfig]:
    """A configuration of a small run by the plain preset, with options of the test's own."""

    def make(model: str = "mtmlan", **options: Any) -> TrainConfig:
        small = {
            "data": SEQUENCES if model == "mtmlan" else MODALITIES,
            "epochs": 3,
            "hidden_size": 4,
            "attention_size": 3,
            "device": "cpu",
        }
        return TrainConfig(model=model, **{**preset("paper"), **small, **options})

    return make
