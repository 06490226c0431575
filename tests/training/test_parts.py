"""A batch in parts gives the step of the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastmtl.training import TrainConfig, Trainer
from fastmtl.training.parts import InParts

MakeConfig = Callable[..., TrainConfig]


def in_double(config: TrainConfig, out: Path) -> dict[str, Tensor]:
    run = Trainer.from_config(config, out)
    run.model.double()
    run.balancer.double()
    batches = run.batches
    batches.features = {name: value.double() for name, value in batches.features.items()}
    batches.targets = batches.targets.double()
    batches.present = None if batches.present is None else batches.present.double()
    run.fit()
    return run.state.tensors()


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("mtmlan", {"balancer": "dmtl", "shared_features": 5}),
        ("mtmlan", {"balancer": "tdb", "balance_at": "first"}),
        ("hgfn", {"balancer": "famo"}),
        ("hgfn", {"balancer": "gradnorm", "clip_grad_norm": 0.01}),
        ("gfn", {"balancer": "uncertainty"}),
    ],
)
def test_parts_give_the_weights_of_the_whole(
    make_config: MakeConfig, tmp_path: Path, model: str, options: dict[str, Any]
) -> None:
    small = make_config(model, epochs=2, batch_size=10, **options)
    whole = in_double(small, tmp_path / "whole")
    parts = in_double(make_config(model, epochs=2, batch_size=10, accumulate=4, **options),
                      tmp_path / "parts")  # fmt: skip
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-6, atol=1e-6)


class Counting(nn.Linear):
    """Says how many samples each call has, and is called with again in the backward pass."""

    def __init__(self) -> None:
        super().__init__(3, 2)
        self.calls: list[int] = []

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        self.calls.append(len(x))
        return nn.functional.dropout(super().forward(x).tanh(), 0.5)


def test_all_parts_but_the_last_are_computed_again() -> None:
    model = Counting()
    logits = InParts(model, 4)(torch.ones(10, 3))
    assert model.calls == [3, 3, 2, 2]
    logits.sum().backward()
    assert sorted(model.calls[4:]) == [2, 3, 3]
    InParts(model, 4)(torch.ones(2, 3)).sum().backward()
    assert model.calls[7:9] == [1, 1]


def test_dropout_is_drawn_once() -> None:
    model = Counting()
    logits = InParts(model, 2)(torch.ones(6, 3))
    logits.sum().backward()
    # The gradient of a dropped logit is 0: that of the bias counts those that were not.
    kept = (logits != 0).sum(0) > 0
    assert model.bias.grad is not None
    assert bool(((model.bias.grad != 0) == kept).all())


def test_combined_gradients_are_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="accumulate: expected 1 with a balancer that combines"):
        Trainer.from_config(make_config("hgfn", balancer="mgda", accumulate=2), tmp_path / "run")
    assert not (tmp_path / "run").exists()
