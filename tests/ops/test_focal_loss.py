from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils._python_dispatch import TorchDispatchMode

from fastmtl import use_backend
from fastmtl.ops import focal_loss
from tests.axes import one_at_a_time
from tests.problems import Problem, check, closed_form, exact, focal_loss_problem, seeds_for, solve
from tests.tolerances import assert_close

F64, NAN = torch.float64, float("nan")
NARROW = [torch.bfloat16, torch.float16]


def problem_of(shape: tuple[int, int], dtype: torch.dtype, **options: Any) -> Problem:
    return focal_loss_problem(*shape, dtype, **options)


CASES = one_at_a_time(
    # Tiles, rows and columns with tails.
    {"shape": (257, 13), "dtype": torch.float32},
    {
        "shape": [(20, 7), (1, 1), (33, 1), (1, 65), (5, 1500), (3000, 8), (0, 4), (4, 0)],
        "dtype": [F64, *NARROW],
        "reduction": ["sum", "mean", "none"],
        "gamma": [0, 0.5, 1, 3.7, 10],
        "labels": [torch.bool, torch.int32, torch.int64, torch.float16, F64],
    },
    # Columns in blocks, whose results are not written in place.
    *({"shape": (5, 1500), "dtype": dtype} for dtype in (F64, *NARROW)),
    *({"shape": (5, 1500), "reduction": reduction} for reduction in ("sum", "mean", "none")),
    *({"shape": (0, 4), "reduction": reduction} for reduction in ("sum", "mean", "none")),
    *({"dtype": dtype, "reduction": "none"} for dtype in (F64, *NARROW)),
    *({"dtype": F64, "gamma": gamma} for gamma in (0, 1, 3.7)),
    {"dtype": torch.bfloat16, "labels": torch.bool},
)


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_float64(kernels: str, case: dict[str, Any]) -> None:
    (dtype,) = check(problem_of(**case))
    assert dtype == (F64 if case["dtype"] == F64 else torch.float32)


@pytest.mark.parametrize(
    ("reduction", "gamma"), [("task", 2), ("sum", 0), ("mean", 1), ("none", 2.5), ("task", 0.5)]
)
def test_gradcheck(backend: str, reduction: str, gamma: float) -> None:
    problem = focal_loss_problem(6, 3, F64, reduction=reduction, gamma=gamma).differentiable()
    torch.autograd.gradcheck(lambda z: problem.put(logits=z).outputs(), problem.leaves["logits"])


@pytest.mark.parametrize("reduction", ["task", "sum", "mean", "none"])
@pytest.mark.parametrize("gamma", [0, 1, 2, 3.5])
def test_closed_form_of_the_reference_is_its_derivative(gamma: float, reduction: str) -> None:
    problem = focal_loss_problem(30, 4, F64, gamma=gamma, reduction=reduction)
    seeds = seeds_for(problem)
    for one, other in zip(closed_form(problem, seeds), exact(problem, seeds), strict=True):
        assert_close(one, other)


def test_gamma_zero_is_cross_entropy(backend: str) -> None:
    logits, targets = torch.randn(50, 3, dtype=F64), torch.randint(2, (50, 3)).double()
    wanted = binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(0)
    assert_close(focal_loss(logits, targets, gamma=0), wanted)


@pytest.mark.parametrize("gamma", [0.5, 2])
def test_definition(backend: str, gamma: float) -> None:
    logits, targets = torch.randn(50, 3, dtype=F64), torch.randint(2, (50, 3)).double()
    p = torch.where(targets == 1, logits.sigmoid(), (-logits).sigmoid())
    weight = torch.where(targets == 1, torch.tensor([0.5, 1, 3], dtype=F64), 1)
    loss = focal_loss(logits, targets, gamma=gamma, pos_weight=torch.tensor([0.5, 1, 3]))
    assert_close(loss, (weight * -((1 - p) ** gamma) * p.log()).mean(0))


EXTREMES = one_at_a_time(
    {"dtype": torch.float32, "gamma": 2},
    {"dtype": [F64, *NARROW], "gamma": [0, 0.3, 1, 5]},
    {"dtype": F64, "gamma": 0.3},
    {"dtype": torch.bfloat16, "gamma": 5},
)


@pytest.mark.parametrize("case", EXTREMES)
def test_finite_at_extreme_logits(kernels: str, case: dict[str, Any]) -> None:
    dtype = case["dtype"]
    # Above max / gamma the reference overflows inside autograd.
    largest = torch.finfo(dtype).max / 16
    row = torch.tensor([largest, 1e4, 200, 88.5, 17, 1e-3, 0, 1e-30], dtype=F64)
    logits = torch.cat([row, -row]).clamp(-largest, largest).to(dtype)[:, None].expand(-1, 2)
    others = {"targets": torch.tensor([0.0, 1.0]).expand(16, 2), "reduction": "none"}
    problem = Problem(focal_loss, {"logits": logits}, others | {"gamma": case["gamma"]})
    for actual, wanted in zip(solve(problem), exact(problem), strict=True):
        assert actual.isfinite().all()
        error = (actual.double() - wanted).abs()
        tiny = torch.finfo(actual.dtype).smallest_normal
        assert (error <= 2e-2 * wanted.abs() + 4 * tiny).all()


def run(logits: Tensor, targets: Tensor, **others: Any) -> list[Tensor]:
    return solve(Problem(focal_loss, {"logits": logits}, {"targets": targets} | others))


def test_nan_logits_show(kernels: str) -> None:
    loss, slope = run(
        torch.tensor([[NAN, 1.0], [0.0, NAN]]), torch.tensor([[1.0, 0.0], [0.0, NAN]])
    )
    assert loss.isnan().tolist() == [True, False]
    assert slope.isnan().tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int32, torch.int64])
def test_a_target_that_is_no_label_makes_the_loss_nan(kernels: str, dtype: torch.dtype) -> None:
    loss, _ = run(torch.randn(2, 2), torch.tensor([[1, 0], [2, 1]]).to(dtype))
    assert loss.isnan().tolist() == [True, False]


def test_a_task_without_labels_is_zero(backend: str) -> None:
    targets = torch.tensor([[NAN, 1.0], [NAN, 0.0]])
    loss, slope = run(torch.randn(2, 2), targets)
    assert loss[0] == 0
    assert loss[1] > 0
    assert (slope[:, 0] == 0).all()
    for reduction in ("task", "sum", "mean", "none"):
        nothing = torch.zeros(2, 2, dtype=torch.bool)
        loss, slope = run(torch.randn(2, 2), targets, mask=nothing, reduction=reduction)
        assert (loss == 0).all()
        assert (slope == 0).all()


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.float16]
)
def test_target_dtypes(backend: str, dtype: torch.dtype) -> None:
    logits, targets = torch.randn(37, 5), torch.randint(2, (37, 5))
    for actual, wanted in zip(
        run(logits, targets.to(dtype)), run(logits, targets.float()), strict=True
    ):
        assert torch.equal(actual, wanted)


sizes = st.tuples(st.integers(1, 40), st.integers(1, 70))


@given(sizes)
def test_samples_and_tasks_can_be_permuted(backend: str, size: tuple[int, int]) -> None:
    problem = focal_loss_problem(*size, F64)
    row, column = torch.randperm(size[0]), torch.randperm(size[1])
    loss, slope = solve(problem)
    permuted = problem.put(
        **{
            name: value[row][:, column] if value.dim() == 2 else value[column]
            for name, value in problem.tensors().items()
        }
    )
    one, other = solve(permuted)
    assert_close(one, loss[column])
    assert_close(other, slope[row][:, column])


@given(sizes)
def test_missing_labels_are_as_deleted(backend: str, size: tuple[int, int]) -> None:
    problem = focal_loss_problem(*size, F64)
    logits, others = problem.leaves["logits"], problem.others
    present = others["mask"] & ~others["targets"].isnan()
    loss = focal_loss(logits, **others)
    for task in range(size[1]):
        rows = present[:, task]
        alone = focal_loss(
            logits[rows, task, None],
            others["targets"][rows, task, None],
            pos_weight=others["pos_weight"][task, None],
        )
        assert_close(alone[0], loss[task])


@given(sizes)
def test_sum_is_mean_times_count(backend: str, size: tuple[int, int]) -> None:
    problem = focal_loss_problem(*size, F64)
    present = problem.others["mask"] & ~problem.others["targets"].isnan()
    by_reduction = {
        reduction: problem.put(reduction=reduction).outputs()[0]
        for reduction in ("task", "sum", "mean", "none")
    }
    total = by_reduction["sum"]
    assert_close(by_reduction["none"].sum(), total)
    assert (by_reduction["none"][~present] == 0).all()
    assert_close((by_reduction["task"] * present.sum(0)).sum(), total)
    assert_close(by_reduction["mean"] * present.sum(), total)


@given(sizes, st.floats(0, 6))
def test_labels_and_logits_can_be_flipped(
    backend: str, size: tuple[int, int], gamma: float
) -> None:
    problem = focal_loss_problem(*size, F64, gamma=gamma).put(pos_weight=None)
    flipped = problem.put(logits=-problem.leaves["logits"], targets=1 - problem.others["targets"])
    (loss, slope), (other, other_slope) = solve(problem), solve(flipped)
    assert_close(other, loss)
    assert_close(other_slope, -slope)


def test_same_bits_on_any_number_of_threads(isa: str) -> None:
    problem = focal_loss_problem(9000, 17)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = solve(problem)
        torch.set_num_threads(3)
        three = solve(problem)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one[0], three[0])
    assert torch.equal(one[1], three[1])


GOOD: dict[str, Any] = {"logits": torch.zeros(4, 2), "targets": torch.zeros(4, 2)}


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"logits": [[0.0]]}, TypeError, "logits: expected a tensor, got list"),
        ({"logits": torch.zeros(4, 2, dtype=torch.int64)}, TypeError, "logits: expected float32"),
        ({"logits": torch.zeros(3)}, ValueError, r"logits: expected shape \(N, T\), got \(3,\)"),
        ({"targets": torch.zeros(4, 3)}, ValueError, r"targets: .* got shape \(4, 3\)"),
        ({"targets": torch.zeros(4, 2) * 1j}, TypeError, "targets: expected a real"),
        ({"targets": torch.zeros(4, 2, requires_grad=True)}, ValueError, "targets: has no gradie"),
        ({"targets": torch.zeros(4, 2, device="meta")}, ValueError, "targets: expected the device"),
        ({"gamma": -1}, ValueError, "gamma: expected a finite number >= 0, got -1"),
        ({"gamma": NAN}, ValueError, "gamma"),
        ({"gamma": float("inf")}, ValueError, "gamma"),
        ({"gamma": "2"}, TypeError, "gamma: expected a number, got str"),
        ({"reduction": "max"}, ValueError, "reduction: expected one of"),
        ({"mask": torch.ones(4, 2)}, TypeError, "mask: expected bool"),
        ({"mask": torch.ones(2, 4, dtype=torch.bool)}, ValueError, "mask: expected"),
        ({"pos_weight": torch.ones(3)}, ValueError, "pos_weight: expected one weight a task"),
        ({"pos_weight": torch.ones(2, dtype=torch.int64)}, TypeError, "pos_weight: expected"),
        ({"pos_weight": torch.ones(2, requires_grad=True)}, ValueError, "pos_weight: has no"),
    ],
)
def test_wrong_arguments(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        focal_loss(**GOOD | wrong)


def test_targets_of_32_bits_are_read_as_they_are() -> None:
    class Conversions(TorchDispatchMode):
        found: ClassVar[list[str]] = []

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if "_to_copy" in str(func):
                self.found.append(str(func))
            return func(*args, **(kwargs or {}))

    pytest.importorskip("fastmtl._cpu")
    logits = torch.randn(20, 7, requires_grad=True)
    with use_backend("native"), Conversions():
        focal_loss(logits, torch.ones(20, 7, dtype=torch.int32)).sum().backward()
    assert Conversions.found == []
