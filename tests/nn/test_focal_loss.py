from __future__ import annotations

import copy

import pytest
import torch

from fastmtl import ops
from fastmtl.nn import FocalLoss


@pytest.mark.parametrize("reduction", ["task", "sum", "mean", "none"])
def test_is_the_op_with_its_settings(reduction: str) -> None:
    logits, targets = torch.randn(6, 3), torch.randint(0, 2, (6, 3))
    mask = torch.rand(6, 3) < 0.7
    weight = torch.tensor([1.0, 2.0, 0.5])
    loss = FocalLoss(gamma=1.5, pos_weight=weight, reduction=reduction)
    expected = ops.focal_loss(
        logits, targets, gamma=1.5, mask=mask, pos_weight=weight, reduction=reduction
    )
    assert loss(logits, targets, mask).equal(expected)


def test_defaults_are_those_of_the_op() -> None:
    for tasks in (1, 3):
        logits, targets = torch.randn(6, tasks), torch.randint(0, 2, (6, tasks))
        assert FocalLoss()(logits, targets).equal(ops.focal_loss(logits, targets))


def test_weights_move_and_are_saved_with_the_module() -> None:
    loss = FocalLoss(pos_weight=torch.tensor([1.0, 3.0])).double()
    assert loss.pos_weight is not None
    assert loss.pos_weight.dtype == torch.float64
    assert set(loss.state_dict()) == {"pos_weight"}
    assert not FocalLoss().state_dict()
    assert copy.deepcopy(loss).pos_weight.equal(loss.pos_weight)


def test_settings_are_shown() -> None:
    assert repr(FocalLoss(gamma=1.5, reduction="sum")) == "FocalLoss(gamma=1.5, reduction='sum')"


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"^gamma: "):
        FocalLoss(gamma=-1.0)
    with pytest.raises(TypeError, match=r"^gamma: expected a number, got str"):
        FocalLoss(gamma="2")
    with pytest.raises(ValueError, match=r"^pos_weight: expected a \(T,\) tensor"):
        FocalLoss(pos_weight=torch.ones(2, 1))
    with pytest.raises(ValueError, match=r"^pos_weight: "):
        FocalLoss(pos_weight=torch.ones(2))(torch.zeros(4, 3), torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"^reduction: expected one of"):
        FocalLoss(reduction="max")(torch.zeros(4, 3), torch.zeros(4, 3))


@pytest.mark.parametrize(
    "old",
    [
        lambda: FocalLoss(3, 1.5, torch.ones(3)),
        lambda: FocalLoss(3, gamma=1.5),
        lambda: FocalLoss(num_tasks=3, gamma=1.5),
    ],
)
def test_the_number_of_tasks_is_taken_with_a_warning_and_still_checked(old) -> None:
    with pytest.warns(DeprecationWarning, match=r"^FocalLoss: num_tasks") as caught:
        loss = old()
    assert caught[0].filename == __file__
    assert loss.gamma == 1.5
    logits, targets = torch.randn(4, 3), torch.randint(0, 2, (4, 3))
    assert loss(logits, targets).equal(ops.focal_loss(logits, targets, gamma=1.5))
    with pytest.raises(ValueError, match=r"^logits: expected a \(N, 3\) tensor, got shape"):
        loss(torch.zeros(4, 2), torch.zeros(4, 2))


@pytest.mark.filterwarnings("ignore:FocalLoss")
def test_a_positional_argument_is_never_gamma() -> None:
    assert FocalLoss(7).gamma == 2.0
    with pytest.raises(TypeError, match=r"^num_tasks: expected an int, got 2\.0"):
        FocalLoss(2.0)
    with pytest.raises(ValueError, match=r"^num_tasks: expected at least 1"):
        FocalLoss(0)
    with pytest.raises(ValueError, match=r"^pos_weight: expected a \(3,\) tensor"):
        FocalLoss(3, pos_weight=torch.ones(2))
