from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastmtl import ops
from fastmtl.nn import GroupedFocalLoss

SIZES = (3, 2)


def problem() -> tuple[Tensor, Tensor]:
    logits = torch.randn(6, 5)
    targets = torch.stack([torch.randint(0, 3, (6,)), torch.randint(0, 2, (6,))], 1)
    targets[2, 0] = -100
    return logits, targets


@pytest.mark.parametrize("reduction", ["task", "sum", "mean", "none"])
def test_is_the_op_with_its_settings(reduction: str) -> None:
    logits, targets = problem()
    weight = torch.rand(5)
    loss = GroupedFocalLoss(SIZES, gamma=1.5, weight=weight, reduction=reduction)
    expected = ops.grouped_focal_loss(
        logits, targets, SIZES, gamma=1.5, weight=weight, reduction=reduction
    )
    assert loss(logits, targets).equal(expected)


def test_defaults_are_those_of_the_op() -> None:
    logits, targets = problem()
    expected = ops.grouped_focal_loss(logits, targets, SIZES)
    assert GroupedFocalLoss(SIZES)(logits, targets).equal(expected)


@pytest.mark.parametrize("ignore_index", [-1, 0, 7])
def test_the_ignored_target_is_missing(ignore_index: int) -> None:
    logits, targets = problem()
    if ignore_index == 0:
        expected = GroupedFocalLoss(SIZES)(logits, targets.masked_fill(targets == 0, -100))
    else:
        expected = GroupedFocalLoss(SIZES)(logits, targets)
    marked = targets.masked_fill(targets == -100, ignore_index)
    assert GroupedFocalLoss(SIZES, ignore_index=ignore_index)(logits, marked).equal(expected)


def test_weights_move_and_are_saved_with_the_module() -> None:
    loss = GroupedFocalLoss(SIZES, weight=torch.rand(5)).double()
    assert loss.weight is not None
    assert loss.weight.dtype == torch.float64
    assert set(loss.state_dict()) == {"weight"}
    assert not GroupedFocalLoss(SIZES).state_dict()
    assert copy.deepcopy(loss).weight.equal(loss.weight)


def test_a_state_dict_with_the_old_name_loads() -> None:
    weight = torch.rand(5)
    network = nn.Sequential(GroupedFocalLoss(SIZES, weight=torch.ones(5)))
    old = {"0.class_weight": weight}
    network.load_state_dict(old)
    assert network[0].weight.equal(weight)
    assert set(old) == {"0.class_weight"}


@pytest.mark.parametrize(
    "old",
    [
        lambda weight: GroupedFocalLoss(SIZES, 1.5, weight),
        lambda weight: GroupedFocalLoss(SIZES, gamma=1.5, class_weight=weight),
    ],
)
def test_old_arguments_are_taken_with_a_warning(old: Any) -> None:
    weight = torch.rand(5)
    with pytest.warns(DeprecationWarning, match=r"^GroupedFocalLoss: .*class_weight") as caught:
        loss = old(weight)
    assert caught[0].filename == __file__
    assert loss.gamma == 1.5
    assert loss.weight.equal(weight)
    with pytest.warns(DeprecationWarning, match=r"^GroupedFocalLoss\.class_weight is now weight$"):
        assert loss.class_weight is loss.weight


def test_settings_are_shown() -> None:
    shown = "group_sizes=(3, 2), gamma=2.0, ignore_index=-1, reduction='task'"
    assert repr(GroupedFocalLoss(SIZES, ignore_index=-1)) == f"GroupedFocalLoss({shown})"


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"^logits: expected a \(N, 5\) tensor, got shape"):
        GroupedFocalLoss(SIZES)(torch.zeros(4, 3), torch.zeros(4, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"^gamma: "):
        GroupedFocalLoss(SIZES, gamma=-1.0)
    with pytest.raises(ValueError, match=r"^weight: expected a \(5,\) tensor"):
        GroupedFocalLoss(SIZES, weight=torch.ones(2))
    with pytest.raises(TypeError, match=r"^ignore_index: expected an int, got None"):
        GroupedFocalLoss(SIZES, ignore_index=None)
    with pytest.raises(ValueError, match=r"^group_sizes: "):
        GroupedFocalLoss([3, 1])
    with pytest.raises(ValueError, match=r"^group_sizes: expected at least one"):
        GroupedFocalLoss([])
