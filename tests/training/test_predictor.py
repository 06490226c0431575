from __future__ import annotations

import pytest
import torch
from torch import nn

from fastmtl.data import synthetic
from fastmtl.training.batches import Batches
from fastmtl.training.forward import compute_logits


class Noisy(nn.Module):
    """A model that tells whether it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        if lengths is None:
            raise ValueError("no lengths")
        return self.dropout(torch.ones(len(x), 2))


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_leaves_a_model_in_the_mode_it_was_in(training: bool) -> None:
    data = synthetic.disaster(20, 3, 4, min_frames=2)
    batches = Batches(data, torch.device("cpu"))
    model = Noisy().train(training)
    assert (compute_logits(model, batches, torch.arange(20), 8) == 1).all()
    assert model.training == model.dropout.training == training
    batches.lengths = None
    with pytest.raises(ValueError, match="no lengths"):
        compute_logits(model, batches, torch.arange(20), 8)
    assert model.training == model.dropout.training == training
