"""Focal loss, forward and backward, beside PyTorch eager, torch.compile and torchvision's formula.

The limit counts the bytes that must move: forward reads logits and targets, backward reads them
again and writes the gradient.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks import formulas
from benchmarks.support import copy_bandwidth, forward_backward, time_peer
from fastmtl.ops import focal_loss
from tests.tolerances import assert_close

SHAPES = [(20, 7), (256, 100), (4096, 64), (65536, 64)]
PEERS = ["fastmtl", "eager", "torch.compile", "torchvision's formula"]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("peer", PEERS)
def test_focal_loss(benchmark: Any, peer: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    logits = torch.randn(shape).to(dtype).requires_grad_()
    targets = (torch.rand(shape) > 0.7).to(dtype)
    function = {
        "fastmtl": focal_loss,
        "eager": formulas.focal_loss,
        "torch.compile": torch.compile(formulas.focal_loss),
        "torchvision's formula": formulas.torchvision_focal_loss,
    }[peer]
    step = forward_backward(lambda z: function(z, targets), [logits])

    logits64 = logits.detach().double().requires_grad_()
    (wanted,) = forward_backward(lambda z: formulas.focal_loss(z, targets), [logits64])()
    # torchvision's formula computes in the dtype of the logits, and 1 - p_t cancels.
    scale = 1.0 if peer != "torchvision's formula" else 20.0
    assert_close(step()[0], wanted, dtype, scale=scale)

    size = logits.element_size()
    moved = logits.numel() * 5 * size
    group = f"focal loss {shape} {str(dtype).removeprefix('torch.')}, forward + backward"
    time_peer(benchmark, peer, step, group=group, limit=moved / copy_bandwidth())
