from __future__ import annotations

import pytest
import torch

from fastmtl.nn.sequence import masked_softmax, need_lengths, padding_mask


@pytest.mark.parametrize("lengths", [None, torch.tensor([4, 1, 2]), torch.tensor([4, 4, 4])])
def test_good_lengths(lengths: torch.Tensor | None) -> None:
    need_lengths(lengths, 3, 4)


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        ([4, 1, 2], TypeError, "expected a tensor, got list"),
        (torch.tensor([4.0, 1.0, 2.0]), TypeError, "expected an int64 tensor, got torch.float32"),
        (torch.tensor([4, 1, 2], dtype=torch.int32), TypeError, "expected an int64 tensor"),
        (torch.tensor([4, 1]), ValueError, r"expected \(B,\) = \(3,\), got shape \(2,\)"),
        (torch.tensor([[4, 1, 2]]), ValueError, r"expected .*, got shape \(1, 3\)"),
        (torch.tensor([4, 0, 2]), ValueError, "expected lengths from 1 to 4, .* 0 to 4"),
        (torch.tensor([4, 5, 2]), ValueError, "expected lengths from 1 to 4, .* 2 to 5"),
        (torch.empty(3, dtype=torch.int64, device="meta"), ValueError, "expected a CPU tensor"),
    ],
)
def test_bad_lengths(lengths: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^lengths: {message}"):
        need_lengths(lengths, 3, 4)


def test_empty_sequences() -> None:
    with pytest.raises(ValueError, match="at least one time step"):
        need_lengths(None, 3, 0)
    need_lengths(torch.empty(0, dtype=torch.int64), 0, 4)


def test_softmax_of_the_steps_that_are_there() -> None:
    scores = torch.randn(5, 3, 4, dtype=torch.float64)
    lengths = torch.tensor([4, 1, 2])
    weights = masked_softmax(scores, padding_mask(lengths, 4, scores.device))
    for sample, length in enumerate(lengths.tolist()):
        expected = scores[:, sample, :length].softmax(-1)
        torch.testing.assert_close(weights[:, sample, :length], expected)
        assert (weights[:, sample, length:] == 0).all()


def test_softmax_of_extremes_is_finite() -> None:
    scores = torch.tensor([[[3e38, -3e38, 0.0], [-3e38, -3e38, 3e38]]], requires_grad=True)
    padding = padding_mask(torch.tensor([3, 2]), 3, scores.device)
    weights = masked_softmax(scores, padding)
    weights.square().sum().backward()
    assert weights.isfinite().all()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    assert weights[0, 1].tolist() == [0.5, 0.5, 0.0]
