from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import fastmtl
from fastmtl.data.tasks import Tasks
from fastmtl.nn import FocalLoss, GroupedFocalLoss
from fastmtl.training import TrainConfig, build_model
from fastmtl.training.losses import TaskLosses, build_loss, check_figures

TASKS = Tasks(["a", "b", "c", "d"], {"c": ["x", "y", "z"], "d": ["p", "q"]})
MakeConfig = Callable[..., TrainConfig]


def test_every_task_has_its_own_loss() -> None:
    torch.manual_seed(0)
    logits = torch.randn(9, 7, dtype=torch.float64, requires_grad=True)
    y = torch.stack([torch.randint(n, (9,)) for n in (2, 2, 3, 2)], 1).float()
    y[torch.rand(9, 4) < 0.3] = torch.nan
    y[:, 3] = torch.nan
    losses = TaskLosses(TASKS, FocalLoss(gamma=1.5), gamma=1.5)(logits, y)
    classes = y[:, 2:].nan_to_num(-100).long()
    expected = torch.cat(
        [
            FocalLoss(gamma=1.5)(logits[:, :2], y[:, :2]),
            GroupedFocalLoss([3, 2], gamma=1.5)(logits[:, 2:], classes),
        ]
    )
    assert losses.equal(expected)
    assert losses[3] == 0
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert gradient[:, 5:].eq(0).all()
    assert gradient.isfinite().all()


def test_classes_alone() -> None:
    tasks = Tasks(["c"], {"c": ["x", "y", "z"]})
    losses = TaskLosses(tasks, FocalLoss())(torch.zeros(2, 3), torch.tensor([[1.0], [2.0]]))
    expected = GroupedFocalLoss([3])(torch.zeros(2, 3), torch.tensor([[1], [2]]))
    assert losses.equal(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"loss": "asymmetric"},
            "loss: expected focal for the multi-class tasks informative, .*got",
        ),
        ({"loss": "class-balanced"}, "loss: expected focal .* got class-balanced"),
        ({"smoothing": 0.1}, "smoothing: expected 0 for the multi-class tasks"),
    ],
)
def test_losses_of_binary_tasks_alone(make_config: MakeConfig, options, message: str) -> None:
    data = fastmtl.data.load("synthetic:crisis?posts=100&text=3&image=3")
    with pytest.raises(ValueError, match=f"^{message}"):
        build_loss(make_config("hgfn", **options), data)


def test_figures_that_tasks_do_not_have(make_config: MakeConfig) -> None:
    check_figures(make_config(monitor="macro_f1", threshold="micro_f1"), TASKS)
    with pytest.raises(
        ValueError, match=r"^monitor: expected macro_f1 only with multi-class tasks"
    ):
        check_figures(make_config(monitor="macro_f1"), Tasks(["a"]))
    alone = Tasks(["c"], {"c": ["x", "y"]})
    with pytest.raises(ValueError, match=r"^monitor: expected micro_f1 only with binary tasks"):
        check_figures(make_config(monitor="micro_f1"), alone)
    with pytest.raises(ValueError, match=r"^threshold: expected half without a binary task"):
        check_figures(make_config(threshold="micro_f1"), alone)


def test_a_model_starts_at_the_frequencies_of_classes(make_config: MakeConfig) -> None:
    data = fastmtl.data.load("synthetic:crisis?posts=200&text=3&image=3&missing=0.2")
    bias = build_model(make_config("hgfn", prior_bias=True), data).output.bias
    shares = data.tasks.frequencies(data.y[data.indices("train")]).split([2, 5, 3])
    for own, expected in zip(bias, shares, strict=True):
        torch.testing.assert_close(own[: len(expected)].softmax(0), expected)
