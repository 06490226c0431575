"""Data, and options for small runs on it."""

from __future__ import annotations

import numpy as np

FLAT = "synthetic:disaster?clips=60&frames=3&features=6"
MODALITIES = "synthetic:disaster-multimodal?clips=60&frames=3&text=4&audio=5&video=6"
SMALL = ["--hidden-size", "4", "--attention-size", "3", "--device", "cpu", "--epochs", "2"]
CPU = ["--device", "cpu"]


def npz(path, features=6, labels=("a", "b"), rows=30, **arrays):
    rng = np.random.default_rng(0)
    content = {
        "x": rng.normal(size=(rows, features)).astype(np.float32),
        "y": (np.arange(rows * len(labels)).reshape(rows, -1) // 2 % 2).astype(np.uint8),
        "label_names": np.array(labels),
    }
    np.savez(path, **{k: v for k, v in {**content, **arrays}.items() if v is not None})
    return path
