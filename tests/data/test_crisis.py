from __future__ import annotations

import pytest
import torch

from fastmtl.data import DataError, load
from fastmtl.data.crisis import TASKS, crisis


def test_the_classes_have_their_shares() -> None:
    data = crisis(posts=200, text=4, image=3)
    assert data.class_names == {task: list(classes) for task, classes in TASKS.items()}
    counts = data.y[:, 1].long().bincount()
    assert counts.tolist() == [90, 50, 30, 20, 10]


def test_the_features_tell_the_classes() -> None:
    data = crisis(posts=400, text=20, image=5, signal=8.0)
    text, damage = data.tensors()["text"], data.y[:, 2]
    centres = torch.stack([text[damage == c].mean(0) for c in range(3)])
    found = torch.cdist(text, centres).argmin(1)
    assert (found == damage).double().mean() > 0.6


def test_the_same_seed_draws_the_same_posts() -> None:
    one, same, other = (load(f"synthetic:crisis?posts=100&seed={seed}") for seed in (1, 1, 2))
    assert one.tensors()["text"].equal(same.tensors()["text"])
    assert not one.tensors()["text"].equal(other.tensors()["text"])


def test_hidden_labels() -> None:
    data = load("synthetic:crisis?posts=500&missing=0.3")
    assert 0.2 < data.y.isnan().double().mean() < 0.4


@pytest.mark.parametrize("option", ["posts=5", "text=0", "missing=1", "signal=-1", "seed=-1"])
def test_what_cannot_be_drawn(option: str) -> None:
    with pytest.raises(DataError, match=f"synthetic:crisis: {option.partition('=')[0]}: expected"):
        load(f"synthetic:crisis?{option}")
