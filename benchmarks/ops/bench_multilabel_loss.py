"""Asymmetric loss, forward and backward, beside PyTorch eager and torch.compile of its authors'
formula.

The limit counts the bytes that must move, as for the focal loss.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from benchmarks import formulas
from benchmarks.support import copy_bandwidth, forward_backward, time_peer
from fastmtl.ops import focal_loss, multilabel_loss
from tests.tolerances import assert_close

SHAPES = [(20, 7), (256, 100), (4096, 64), (65536, 64)]
ASYMMETRIC = partial(multilabel_loss, gamma_pos=1.0, gamma_neg=4.0, clip=0.05)
# What options cost: powers that are no whole numbers, and labels between 0 and 1.
POWERS = partial(multilabel_loss, gamma_pos=0.5, gamma_neg=2.5, clip=0.05)
SOFT = partial(multilabel_loss, gamma_pos=1.0, gamma_neg=4.0, clip=0.05, smoothing=0.1)
PEERS = ["fastmtl", "eager", "torch.compile"]
OPTIONS = ["fastmtl, any powers", "fastmtl, soft labels", "fastmtl, focal loss"]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("peer", [*PEERS, *OPTIONS])
def test_asymmetric_loss(
    benchmark: Any, peer: str, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    logits = torch.randn(shape).to(dtype).requires_grad_()
    targets = (torch.rand(shape) > 0.7).to(dtype)
    function = {
        "fastmtl": ASYMMETRIC,
        "eager": formulas.asymmetric_loss,
        "torch.compile": torch.compile(formulas.asymmetric_loss),
        "fastmtl, any powers": POWERS,
        "fastmtl, soft labels": SOFT,
        "fastmtl, focal loss": focal_loss,
    }[peer]
    step = forward_backward(lambda z: function(z, targets), [logits])

    if peer in PEERS:
        logits64 = logits.detach().double().requires_grad_()
        (wanted,) = forward_backward(
            lambda z: formulas.asymmetric_loss(z, targets.double()), [logits64]
        )()
        # The formula computes in the dtype of the logits, and 1 - p cancels.
        assert_close(step()[0], wanted, dtype, scale=1.0 if peer == "fastmtl" else 20.0)

    size = logits.element_size()
    moved = logits.numel() * 5 * size
    group = f"asymmetric loss {shape} {str(dtype).removeprefix('torch.')}, forward + backward"
    time_peer(benchmark, peer, step, group=group, limit=moved / copy_bandwidth())
