from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from fastmtl.ops import focal_loss, grouped_focal_loss
from tests.axes import one_at_a_time
from tests.problems import (
    Problem,
    check,
    closed_form,
    exact,
    grouped_focal_loss_problem,
    seeds_for,
    solve,
)
from tests.tolerances import assert_close

F64 = torch.float64
NARROW = [torch.bfloat16, torch.float16]
WIDE = [2, 2, 2, 2, 1200]

CASES = one_at_a_time(
    # Several tiles of rows, the last one started.
    {"rows": 301, "sizes": [2, 5, 3], "dtype": torch.float32},
    {
        "rows": [0, 1, 20, 64],
        "sizes": [[2], [40, 2], WIDE],
        "dtype": [F64, *NARROW],
        "reduction": ["sum", "mean", "none"],
        "gamma": [0, 0.5, 1, 3.7],
    },
    # Several chunks of rows.
    *({"sizes": WIDE, "dtype": dtype} for dtype in (F64, *NARROW)),
    *({"sizes": WIDE, "reduction": reduction} for reduction in ("sum", "mean", "none")),
    *({"rows": 0, "reduction": reduction} for reduction in ("sum", "mean", "none")),
    *({"dtype": dtype, "reduction": "none"} for dtype in (F64, *NARROW)),
    *({"dtype": F64, "gamma": gamma} for gamma in (0, 3.7)),
)


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_float64(kernels: str, case: dict[str, Any]) -> None:
    (dtype,) = check(grouped_focal_loss_problem(**case))
    assert dtype == (F64 if case["dtype"] == F64 else torch.float32)


@pytest.mark.parametrize(
    ("reduction", "gamma"), [("task", 2), ("sum", 0), ("mean", 1), ("none", 2.5)]
)
def test_gradcheck(backend: str, reduction: str, gamma: float) -> None:
    problem = grouped_focal_loss_problem(5, [2, 4], F64, reduction=reduction, gamma=gamma)
    problem = problem.differentiable()
    torch.autograd.gradcheck(lambda z: problem.put(logits=z).outputs(), problem.leaves["logits"])


@pytest.mark.parametrize("reduction", ["task", "sum", "mean", "none"])
@pytest.mark.parametrize("gamma", [0, 1, 2, 3.5])
def test_closed_form_of_the_reference_is_its_derivative(gamma: float, reduction: str) -> None:
    problem = grouped_focal_loss_problem(30, [2, 5, 3], F64, gamma=gamma, reduction=reduction)
    seeds = seeds_for(problem)
    for one, other in zip(closed_form(problem, seeds), exact(problem, seeds), strict=True):
        assert_close(one, other)


def test_gamma_zero_is_cross_entropy(backend: str) -> None:
    problem = grouped_focal_loss_problem(50, [4, 2, 3], F64, gamma=0).put(weight=None)
    logits, targets = problem.leaves["logits"], problem.others["targets"]
    wanted = [
        cross_entropy(scores, labels) if (labels >= 0).any() else torch.zeros(()).double()
        for scores, labels in zip(logits.split([4, 2, 3], 1), targets.unbind(1), strict=True)
    ]
    assert_close(problem.outputs()[0], torch.stack(wanted))


def test_weight_is_that_of_the_label(backend: str) -> None:
    problem = grouped_focal_loss_problem(50, [4, 2, 3], F64, reduction="none")
    weight, targets = problem.others["weight"], problem.others["targets"]
    own = weight[targets.clamp(min=0) + torch.tensor([0, 4, 6])]
    assert_close(problem.outputs()[0], own * problem.put(weight=None).outputs()[0])


@pytest.mark.parametrize("gamma", [0, 1.5, 2])
def test_pairs_are_the_binary_loss_of_the_margin(backend: str, gamma: float) -> None:
    logits, targets = torch.randn(30, 8, dtype=F64), torch.randint(2, (30, 4))
    wanted = focal_loss(logits[:, 1::2] - logits[:, ::2], targets, gamma=gamma)
    assert_close(grouped_focal_loss(logits, targets, [2, 2, 2, 2], gamma=gamma), wanted)


sizes = st.tuples(st.integers(1, 70), st.lists(st.integers(2, 9), min_size=1, max_size=4))


@given(sizes)
def test_shifting_a_group_changes_nothing(backend: str, size: tuple[int, list[int]]) -> None:
    problem = grouped_focal_loss_problem(*size, F64)
    shift = torch.cat([20 * torch.randn(()).expand(count) for count in size[1]])
    loss, slope = solve(problem)
    for actual, wanted in zip(
        solve(problem.changed(lambda z: z + shift)), (loss, slope), strict=True
    ):
        torch.testing.assert_close(actual, wanted, rtol=1e-8, atol=1e-10)
    for part in slope.split(size[1], 1):
        torch.testing.assert_close(part.sum(1), torch.zeros(size[0]).double(), rtol=0, atol=1e-12)


@given(sizes)
def test_samples_and_groups_can_be_permuted(backend: str, size: tuple[int, list[int]]) -> None:
    problem = grouped_focal_loss_problem(*size, F64)
    row, order = torch.randperm(size[0]), torch.randperm(len(size[1])).tolist()
    groups = torch.arange(sum(size[1])).split(size[1])
    column = torch.cat([groups[k] for k in order])
    permuted = problem.put(
        logits=problem.leaves["logits"][row][:, column],
        targets=problem.others["targets"][row][:, order],
        group_sizes=[size[1][k] for k in order],
        weight=problem.others["weight"][column],
    )
    (loss, slope), (other, other_slope) = solve(problem), solve(permuted)
    assert_close(other, loss[order])
    assert_close(other_slope, slope[row][:, column])


@given(sizes)
def test_missing_labels_are_as_deleted(backend: str, size: tuple[int, list[int]]) -> None:
    problem = grouped_focal_loss_problem(*size, F64)
    targets, loss = problem.others["targets"], problem.outputs()[0]
    begin = 0
    for group, count in enumerate(size[1]):
        rows, own = targets[:, group] >= 0, slice(begin, begin + count)
        alone = grouped_focal_loss(
            problem.leaves["logits"][rows, own],
            targets[rows, group, None],
            [count],
            weight=problem.others["weight"][own],
        )
        assert_close(alone[0], loss[group])
        begin += count


@given(sizes)
def test_sum_is_mean_times_count(backend: str, size: tuple[int, list[int]]) -> None:
    problem = grouped_focal_loss_problem(*size, F64)
    present = problem.others["targets"] >= 0
    by_reduction = {
        reduction: problem.put(reduction=reduction).outputs()[0]
        for reduction in ("task", "sum", "mean", "none")
    }
    total = by_reduction["sum"]
    assert_close(by_reduction["none"].sum(), total)
    assert (by_reduction["none"][~present] == 0).all()
    assert_close((by_reduction["task"] * present.sum(0)).sum(), total)
    assert_close(by_reduction["mean"] * present.sum(), total)


EXTREMES = one_at_a_time(
    {"dtype": torch.float32, "gamma": 2}, {"dtype": [F64, *NARROW], "gamma": [0, 0.5]}
)


@pytest.mark.parametrize("case", EXTREMES)
def test_finite_at_extreme_logits(kernels: str, case: dict[str, Any]) -> None:
    dtype = case["dtype"]
    big = min(1e30, torch.finfo(dtype).max / 16)
    logits = torch.tensor([[big, -big, 0], [200, -200, 200], [0, 0, 0]], dtype=F64)
    targets = torch.arange(3)[:, None]
    others = {
        "targets": torch.cat([targets.repeat(3, 1), targets.repeat_interleave(3, 0)], 1)[:, [0, 1]],
        "group_sizes": [3, 3],
        "gamma": case["gamma"],
    }
    leaves = {"logits": logits.repeat(1, 2).to(dtype).repeat(3, 1)}
    loss, slope = solve(Problem(grouped_focal_loss, leaves, others))
    assert loss.isfinite().all()
    assert slope.isfinite().all()


@pytest.mark.parametrize("label", [-1, 3, 99, -101])
def test_a_label_that_is_no_class_makes_the_loss_nan(kernels: str, label: int) -> None:
    others = {"targets": torch.tensor([[label, 0]] * 4), "group_sizes": [3, 2]}
    loss, slope = solve(Problem(grouped_focal_loss, {"logits": torch.randn(4, 5)}, others))
    assert loss.isnan().tolist() == [True, False]
    assert slope[:, 3:].isfinite().all()


GOOD: dict[str, Any] = {
    "logits": torch.zeros(4, 5),
    "targets": torch.zeros(4, 2, dtype=torch.int64),
    "group_sizes": [2, 3],
}


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"group_sizes": [1, 4]}, ValueError, "group_sizes: expected at least 2 classes"),
        ({"group_sizes": []}, ValueError, "group_sizes"),
        ({"group_sizes": [2, 4]}, ValueError, r"logits: expected shape \(N, 6\)"),
        ({"logits": torch.zeros(4, 5, dtype=torch.int32)}, TypeError, "logits"),
        ({"targets": torch.zeros(4, 2)}, TypeError, "targets: expected int64"),
        ({"targets": torch.zeros(4, 3, dtype=torch.int64)}, ValueError, "targets"),
        ({"gamma": -0.5}, ValueError, "gamma"),
        ({"reduction": "batch"}, ValueError, "reduction"),
        ({"weight": torch.ones(4)}, ValueError, "weight"),
        ({"ignore_index": 1.0}, TypeError, "ignore_index: expected an int"),
        ({"weight": torch.ones(5), "class_weight": torch.ones(5)}, TypeError, "class_weight"),
    ],
)
def test_wrong_arguments(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        grouped_focal_loss(**GOOD | wrong)


@pytest.mark.parametrize("ignored", [-1, 0, 7, -100, 2**40])
def test_the_ignored_label_is_missing(kernels: str, ignored: int) -> None:
    problem = grouped_focal_loss_problem(40, [3, 2], F64)
    targets = problem.others["targets"]
    labels = targets.clamp(min=0)
    # A label that is one of the classes is missing all the same.
    missing = (torch.rand(targets.shape) > 0.5) | (labels == ignored)
    given = problem.put(targets=torch.where(missing, ignored, labels), ignore_index=ignored)
    wanted = problem.put(targets=torch.where(missing, -100, labels))
    for actual, expected in zip(solve(given), solve(wanted), strict=True):
        assert_close(actual, expected)


def test_the_former_name_of_weight() -> None:
    problem = grouped_focal_loss_problem(10, [3, 2], F64)
    options = problem.leaves | problem.others
    weight = options.pop("weight")
    with pytest.warns(DeprecationWarning, match="class_weight given as in an older version") as w:
        loss = grouped_focal_loss(**options, class_weight=weight)
    assert w[0].filename == __file__
    assert torch.equal(loss, problem.outputs()[0])


@pytest.mark.parametrize("gamma", [0.0, 2.0, 1.5])
def test_all_other_classes_are_excluded(kernels: str, gamma: float) -> None:
    logits = torch.tensor([[1.0, -torch.inf, -torch.inf], [0.5, -torch.inf, 2.0]])
    others = {"targets": torch.tensor([[0], [2]]), "group_sizes": [3], "gamma": gamma}
    problem = Problem(grouped_focal_loss, {"logits": logits}, others)
    for loss, grad in (solve(problem), closed_form(problem)):
        assert loss.isfinite().all()
        assert grad.isfinite().all()
        assert (grad[0] == 0).all()
        assert (grad[1] != 0).tolist() == [True, False, True]
