from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastmtl.ops import stacked_norms
from tests.axes import one_at_a_time
from tests.problems import check, closed_form, exact, seeds_for, solve, stacked_norms_problem
from tests.tolerances import assert_close

F64 = torch.float64

CASES = one_at_a_time(
    # Several chunks of a row, the last one started.
    {"shapes": [(3, 70_001), (3, 3)], "dtype": torch.float32},
    {
        "shapes": [
            [(7, 3, 5)],
            [(1, 1)],
            [(4,)],
            [(100, 33)],
            [(5, 3, 4), (5,), (5, 0), (5, 9)],
            [(0, 4)],
            [(3, 0)],
        ],
        "dtype": [F64, torch.bfloat16, torch.float16],
    },
)


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_float64(kernels: str, case: dict[str, Any]) -> None:
    (dtype,) = check(stacked_norms_problem(*case["shapes"], dtype=case["dtype"]))
    assert dtype == (F64 if case["dtype"] == F64 else torch.float32)


def test_definition(backend: str) -> None:
    parts = [torch.randn(5, 3, 4, dtype=F64), torch.randn(5, dtype=F64)]
    whole = torch.cat([part.reshape(5, -1) for part in parts], 1)
    assert_close(stacked_norms(parts), whole.square().sum(1).sqrt())
    assert_close(stacked_norms(parts[0]), stacked_norms(parts[:1]))


def test_closed_form_of_the_reference_is_its_derivative() -> None:
    problem = stacked_norms_problem((5, 3, 4), (5,), dtype=F64)
    seeds = seeds_for(problem)
    for one, other in zip(closed_form(problem, seeds), exact(problem, seeds), strict=True):
        assert_close(one, other)


@given(st.integers(1, 9), st.lists(st.integers(0, 40), min_size=1, max_size=4))
def test_tasks_can_be_permuted_and_scaled(backend: str, tasks: int, widths: list[int]) -> None:
    parts = [torch.randn(tasks, width, dtype=F64) for width in widths]
    order, factor = torch.randperm(tasks), torch.randn(tasks, 1, dtype=F64)
    norms = stacked_norms(parts)
    assert_close(stacked_norms([part[order] for part in parts]), norms[order])
    scaled = stacked_norms([factor * part for part in parts])
    assert_close(scaled, factor[:, 0].abs() * norms)


def test_expanded(backend: str) -> None:
    x = torch.randn(6, 4, 5)
    assert_close(stacked_norms(x[:, :1].expand(6, 4, 5)), 2 * stacked_norms(x[:, 0]))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_squares_may_be_out_of_range(kernels: str, scale: float) -> None:
    check(stacked_norms_problem((3, 700), (3, 2)).changed(lambda leaf: leaf * scale))


def test_gradient_at_zero_is_zero(kernels: str) -> None:
    norms, grad = solve(stacked_norms_problem((2, 3)).changed(torch.zeros_like))
    assert (norms == 0).all()
    assert (grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_are_rounded_to_nearest(isa: str, dtype: torch.dtype) -> None:
    problem = stacked_norms_problem((3, 5000), dtype=dtype)
    seed = torch.tensor([1.0, 1e-2, 1e-4])  # the last one's are subnormal in float16
    norms, grad = solve(problem, [seed])
    wanted = ((seed / norms)[:, None] * problem.leaves["stacked[0]"].float()).to(dtype)
    # Products of float32 that are on the verge of two values.
    assert (grad != wanted).float().mean() < 1e-3


@pytest.mark.parametrize(
    ("stacked", "error", "message"),
    [
        ([], ValueError, "stacked: expected .* got an empty list"),
        ([torch.ones(2), torch.ones(3)], ValueError, r"stacked\[1\]: expected shape \(T, ...\)"),
        (torch.ones(()), ValueError, r"stacked\[0\]"),
        ([torch.ones(2), [1.0, 2.0]], TypeError, r"stacked\[1\]: expected a tensor"),
        ([torch.ones(2), torch.ones(2).double()], TypeError, r"stacked\[1\]: expected the dtype"),
        (torch.ones(2, dtype=torch.int64), TypeError, r"stacked\[0\]: expected float32"),
    ],
)
def test_wrong_arguments(stacked: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        stacked_norms(stacked)  # type: ignore[arg-type]
