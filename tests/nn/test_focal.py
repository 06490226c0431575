from __future__ import annotations

import pytest
import torch

from fastmtl import ops
from fastmtl.nn import FocalLoss, GroupedFocalLoss


def test_is_the_op_with_its_settings() -> None:
    logits, targets = torch.randn(6, 3), torch.randint(0, 2, (6, 3))
    mask = torch.rand(6, 3) < 0.7
    weight = torch.tensor([1.0, 2.0, 0.5])
    loss = FocalLoss(3, gamma=1.5, pos_weight=weight)
    expected = ops.focal_loss(logits, targets, gamma=1.5, mask=mask, pos_weight=weight)
    assert loss(logits, targets, mask).equal(expected)
    assert FocalLoss(3)(logits, targets).equal(ops.focal_loss(logits, targets))


def test_grouped_is_the_op_with_its_settings() -> None:
    logits = torch.randn(6, 5)
    targets = torch.stack([torch.randint(0, 3, (6,)), torch.randint(0, 2, (6,))], 1)
    targets[2, 0] = -100
    weight = torch.rand(5)
    loss = GroupedFocalLoss([3, 2], gamma=1.5, class_weight=weight)
    expected = ops.grouped_focal_loss(logits, targets, (3, 2), gamma=1.5, class_weight=weight)
    assert loss(logits, targets).equal(expected)


def test_weights_move_and_are_saved_with_the_module() -> None:
    loss = FocalLoss(2, pos_weight=torch.tensor([1.0, 3.0])).double()
    assert loss.pos_weight is not None
    assert loss.pos_weight.dtype == torch.float64
    assert set(loss.state_dict()) == {"pos_weight"}
    assert not FocalLoss(2).state_dict()


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"^logits: expected a \(N, 3\) tensor, got shape"):
        FocalLoss(3)(torch.zeros(4, 2), torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"^logits: expected a \(N, 5\) tensor, got shape"):
        GroupedFocalLoss([3, 2])(torch.zeros(4, 3), torch.zeros(4, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"^gamma: "):
        FocalLoss(3, gamma=-1.0)
    with pytest.raises(ValueError, match=r"^pos_weight: expected a \(3,\) tensor"):
        FocalLoss(3, pos_weight=torch.ones(2))
    with pytest.raises(ValueError, match=r"^class_weight: expected a \(5,\) tensor"):
        GroupedFocalLoss([3, 2], class_weight=torch.ones(2))
    with pytest.raises(ValueError, match=r"^group_sizes: "):
        GroupedFocalLoss([3, 1])
    with pytest.raises(ValueError, match=r"^group_sizes: expected at least one"):
        GroupedFocalLoss([])
