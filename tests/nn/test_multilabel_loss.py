from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from fastmtl import ops
from fastmtl.nn import (
    AsymmetricLoss,
    DistributionBalancedLoss,
    MultilabelLoss,
    class_balanced_weights,
    log_odds,
    rebalanced_weights,
)
from tests.tolerances import assert_close

F64 = torch.float64


def batch(rows: int = 6, tasks: int = 3) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, tasks, dtype=F64), torch.randint(0, 2, (rows, tasks)).double()


OPTIONS: dict[str, Any] = {
    "gamma_pos": 0.5,
    "gamma_neg": torch.tensor([1.0, 2.0, 3.0]),
    "clip": 0.1,
    "poly": 0.3,
    "smoothing": 0.1,
    "pos_weight": torch.tensor([1.0, 2.0, 0.5]),
    "neg_weight": 0.7,
    "shift": -0.2,
    "neg_scale": 2.0,
    "detach_focus": True,
}


@pytest.mark.parametrize("reduction", ["task", "sum", "mean", "none"])
def test_is_the_op_with_its_settings(reduction: str) -> None:
    logits, targets = batch()
    weight = torch.rand(6, 3)
    loss = MultilabelLoss(**OPTIONS, reduction=reduction)
    wanted = ops.multilabel_loss(logits, targets, weight=weight, **OPTIONS, reduction=reduction)
    assert loss(logits, targets, weight).equal(wanted)


def test_defaults_are_those_of_the_op() -> None:
    logits, targets = batch()
    assert MultilabelLoss()(logits, targets).equal(ops.multilabel_loss(logits, targets))


def test_numbers_of_tasks_move_and_are_saved_with_the_module() -> None:
    loss = MultilabelLoss(**OPTIONS).double()
    assert loss.gamma_neg.dtype == F64
    assert set(loss.state_dict()) == {"gamma_neg", "pos_weight"}
    assert not MultilabelLoss().state_dict()
    assert copy.deepcopy(loss).gamma_neg.equal(loss.gamma_neg)


def test_settings_are_shown() -> None:
    assert repr(MultilabelLoss()) == "MultilabelLoss(reduction='task')"
    shown = "gamma_pos=1, gamma_neg=4, clip=0.05, reduction='sum'"
    assert repr(AsymmetricLoss(reduction="sum")) == f"AsymmetricLoss({shown})"
    assert "gamma_neg=..., " in repr(MultilabelLoss(**OPTIONS))
    assert "detach_focus=True" in repr(MultilabelLoss(**OPTIONS))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"gamma_pos": -1.0}, ValueError, r"^gamma_pos: expected a finite number >= 0"),
        ({"gamma_neg": "2"}, TypeError, r"^gamma_neg: expected a number, got str"),
        ({"clip": 1.0}, ValueError, r"^clip: expected a probability in \[0, 1\)"),
        ({"pos_weight": torch.ones(2, 1)}, ValueError, r"^pos_weight: expected a \(T,\) tensor"),
        ({"shift": torch.ones(2, dtype=torch.int64)}, TypeError, r"^shift: expected float32"),
        ({"neg_scale": 0.0}, ValueError, r"^neg_scale: expected a finite number > 0"),
        ({"detach_focus": 1}, TypeError, r"^detach_focus: expected True or False"),
        ({"reduction": "max"}, ValueError, r"^reduction: expected one of"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MultilabelLoss(**options)


def test_asymmetric_loss_has_the_values_of_the_paper() -> None:
    logits, targets = batch()
    wanted = ops.multilabel_loss(logits, targets, gamma_pos=1, gamma_neg=4, clip=0.05)
    assert AsymmetricLoss()(logits, targets).equal(wanted)


@pytest.mark.parametrize("loss", [MultilabelLoss(gamma_neg=2.0), AsymmetricLoss()])
def test_trains(loss: nn.Module) -> None:
    torch.manual_seed(0)
    inputs, network = torch.randn(64, 5), nn.Linear(5, 3)
    targets = (inputs[:, :3] > 0).float()
    before = loss(network(inputs), targets).sum()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    for _ in range(50):
        optimizer.zero_grad()
        loss(network(inputs), targets).sum().backward()
        optimizer.step()
    assert loss(network(inputs), targets).sum() < 0.5 * before


def class_balanced_by_its_formula(counts: list[int], beta: float) -> Tensor:
    """Equation 12 of Cui et al. 2019, normalised as their code does."""
    n = torch.tensor(counts, dtype=F64)
    weights = (1 - beta) / (1 - beta**n)
    return weights / weights.sum() * len(counts)


def test_class_balanced_weights() -> None:
    for beta in (0.0, 0.9, 0.999):
        pos, neg = class_balanced_weights(torch.tensor([3, 50, 99], dtype=F64), 100, beta)
        for task, n in enumerate((3, 50, 99)):
            wanted = class_balanced_by_its_formula([n, 100 - n], beta)
            assert_close(torch.stack([pos[task], neg[task]]), wanted)
    pos, neg = class_balanced_weights(torch.tensor([0, 100]), 100)
    assert pos.isfinite().all()
    assert pos.dtype == torch.float32
    assert_close(pos + neg, torch.tensor([2.0, 2.0]))
    with pytest.raises(ValueError, match=r"^positives: expected real numbers of shape \(T,\)"):
        class_balanced_weights(torch.ones(2, 2), 100)
    with pytest.raises(ValueError, match=r"^beta: expected"):
        class_balanced_weights(torch.ones(2), 100, 1.0)
    with pytest.raises(ValueError, match=r"^samples: expected at least 1"):
        class_balanced_weights(torch.ones(2), 0)


def test_log_odds_shift_the_logits_by_the_prior() -> None:
    odds = log_odds(torch.tensor([10.0, 50.0], dtype=F64), 100)
    assert_close(odds.sigmoid(), torch.tensor([0.1, 0.5], dtype=F64))
    assert log_odds(torch.tensor([0, 100]), 100).isfinite().all()


def test_rebalanced_weights() -> None:
    targets = torch.tensor([[1.0, 1.0, torch.nan], [0.0, 0.0, 0.0]], dtype=F64)
    positives = torch.tensor([10, 40, 20])
    weights = rebalanced_weights(targets, positives, alpha=0.2, beta=5.0, mu=0.1)
    inverse = 1 / positives.double()
    wanted = torch.stack([inverse / (1 / 10 + 1 / 40), inverse / (1 / 40)])
    assert_close(weights, 0.2 + torch.sigmoid(5 * (wanted - 0.1)))
    assert rebalanced_weights(torch.ones(2, 3, dtype=torch.bool), positives).dtype == torch.float32
    assert rebalanced_weights(torch.ones(0, 3), positives).shape == (0, 3)
    with pytest.raises(ValueError, match=r"^positives: expected one number a task"):
        rebalanced_weights(targets, positives[:2])
    with pytest.raises(ValueError, match=r"^targets: expected shape \(N, T\)"):
        rebalanced_weights(targets[0], positives)


def distribution_balanced_by_its_formula(
    logits: Tensor, targets: Tensor, positives: Tensor, samples: int, options: dict[str, float]
) -> Tensor:
    """ResampleLoss of wutong16/DistributionBalancedLoss (mllt/models/losses/resample_loss.py) of
    single elements, with the bias of the paper and without their factor `balance_param`."""
    rate = 1 / positives
    repeat = rate / (targets * rate).sum(1, keepdim=True)
    weight = torch.sigmoid(options["beta"] * (repeat - options["mu"])) + options["alpha"]
    logits = logits - options["kappa"] * torch.log(samples / positives - 1)
    scale = options["neg_scale"]
    logits = logits * (1 - targets) * scale + logits * targets
    weight = weight / scale * (1 - targets) + weight * targets
    loss = binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return weight * (1 - torch.exp(-loss)) ** options["gamma"] * loss


def test_is_the_distribution_balanced_loss_of_its_authors() -> None:
    generator = torch.Generator().manual_seed(0)
    for case in range(2000):
        rows, tasks = (int(n) for n in torch.randint(1, 9, (2,), generator=generator))
        logits = 3 * torch.randn(rows, tasks, generator=generator, dtype=F64)
        targets = torch.randint(2, (rows, tasks), generator=generator).double()
        targets[:, case % tasks] = 1  # they need a positive in every sample
        positives = torch.randint(1, 999, (tasks,), generator=generator).double()
        options = {"neg_scale": (1.0, 2.0, 5.0)[case % 3], "gamma": (0.0, 2.0)[case % 2]}
        options |= {"alpha": 0.1, "beta": 10.0, "mu": 0.3, "kappa": 0.05}
        leaf = logits.clone().requires_grad_()
        loss = DistributionBalancedLoss(positives, 1000, **options, reduction="none")(leaf, targets)
        other = logits.clone().requires_grad_()
        wanted = distribution_balanced_by_its_formula(other, targets, positives, 1000, options)
        assert_close(loss.detach(), wanted.detach(), scale=100)
        (grad,) = torch.autograd.grad(loss.sum(), leaf)
        assert_close(grad, torch.autograd.grad(wanted.sum(), other)[0], scale=100)


def test_distribution_balanced_loss_takes_missing_labels_and_weights() -> None:
    logits, targets = batch()
    targets[0, 0] = torch.nan
    loss = DistributionBalancedLoss(torch.tensor([3, 2, 5]), 10, reduction="none")
    assert set(loss.state_dict()) == {"positives", "shift"}
    weight = torch.rand(6, 3).double()
    weight[1] = 0
    assert_close(loss(logits, targets, weight), weight * loss(logits, targets))
    assert loss(logits, targets, weight)[0, 0] == 0
    with pytest.raises(ValueError, match=r"^gamma: expected"):
        DistributionBalancedLoss(torch.tensor([3, 2]), 10, gamma=-1.0)
