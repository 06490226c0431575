from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fastmtl.ops import task_grad_gramian, task_grad_norms
from tests.axes import one_at_a_time
from tests.problems import check, closed_form, exact, seeds_for, solve, task_grads_problem
from tests.tolerances import assert_close

F64 = torch.float64
OPS = [task_grad_norms, task_grad_gramian]
DIRECT, GRAM = (3, 97, 15, 30), (5, 53, 200, 130)

CASES = one_at_a_time(
    {"sizes": GRAM, "dtype": torch.float32, "shared": True},
    {
        # T, N, I, O: both the direct and the Gram form are the cheaper one in some of them.
        "sizes": [
            DIRECT,
            (7, 20, 33, 12),
            (3, 90, 5, 4),
            (1, 1, 1, 1),
            (4, 1, 9, 2),
            (30, 6, 40, 17),
            (0, 4, 3, 2),
            (3, 0, 4, 2),
            (3, 4, 0, 2),
            (3, 4, 2, 0),
        ],
        "dtype": [F64, torch.bfloat16, torch.float16],
        "shared": [False],
    },
    *({"sizes": sizes, "shared": False} for sizes in (DIRECT, (4, 1, 9, 2), (3, 0, 4, 2))),
    *({"sizes": DIRECT, "dtype": dtype} for dtype in (F64, torch.bfloat16, torch.float16)),
    *({"shared": False, "dtype": dtype} for dtype in (F64, torch.bfloat16)),
)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("op", OPS)
def test_agrees_with_float64(kernels: str, op: Any, case: dict[str, Any]) -> None:
    (dtype,) = check(task_grads_problem(op, **case))
    assert dtype == (F64 if case["dtype"] == F64 else torch.float32)


def materialised(x: Tensor, d: Tensor) -> Tensor:
    """The Gramian by one autograd.grad per task, in float64."""
    weight = torch.zeros(d.shape[2], x.shape[-1], dtype=F64, requires_grad=True)
    grads = []
    for task in range(len(d)):
        y = (x if x.dim() == 2 else x[task]).double() @ weight.T
        grads.append(torch.autograd.grad(y, weight, d[task].double())[0].flatten())
    stacked = torch.stack(grads)
    return stacked @ stacked.T


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize("sizes", [DIRECT, GRAM, (4, 1, 9, 2)])
def test_definition(backend: str, sizes: tuple[int, int, int, int], shared: bool) -> None:
    x, d = task_grads_problem(task_grad_norms, sizes, F64, shared).leaves.values()
    wanted = materialised(x, d)
    assert_close(task_grad_norms(x, d), wanted.diagonal().sqrt())
    assert_close(task_grad_gramian(x, d), wanted)


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize("op", OPS)
def test_closed_form_of_the_reference_is_its_derivative(op: Any, shared: bool) -> None:
    problem = task_grads_problem(op, (3, 5, 4, 6), F64, shared)
    seeds = seeds_for(problem)
    for one, other in zip(closed_form(problem, seeds), exact(problem, seeds), strict=True):
        assert_close(one, other)


sizes = st.tuples(*(st.integers(1, most) for most in (9, 20, 40, 30)))


@given(sizes, st.booleans())
def test_gramian_is_symmetric_with_the_squared_norms_on_its_diagonal(
    backend: str, size: tuple[int, int, int, int], shared: bool
) -> None:
    problem = task_grads_problem(task_grad_gramian, size, torch.float32, shared)
    (gramian,) = problem.outputs()
    if backend != "reference":
        assert torch.equal(gramian, gramian.T)
    norms = task_grad_norms(**problem.leaves)
    assert_close(norms.square(), gramian.diagonal().double(), scale=4)
    assert torch.linalg.eigvalsh(gramian.double()).min() > -1e-4 * gramian.abs().max()


@given(sizes)
def test_tasks_can_be_permuted_and_scaled(backend: str, size: tuple[int, int, int, int]) -> None:
    x, d = task_grads_problem(task_grad_gramian, size, F64).leaves.values()
    gramian, order = task_grad_gramian(x, d), torch.randperm(size[0])
    assert_close(task_grad_gramian(x, d[order]), gramian[order][:, order])
    factor = torch.randn(size[0], dtype=F64)
    scaled = factor[:, None, None] * d
    assert_close(task_grad_gramian(x, scaled), factor[:, None] * gramian * factor)
    assert_close(task_grad_norms(x, scaled), factor.abs() * gramian.diagonal().sqrt())


@given(sizes, st.booleans())
def test_samples_can_be_permuted_and_padded(
    backend: str, size: tuple[int, int, int, int], shared: bool
) -> None:
    x, d = task_grads_problem(task_grad_gramian, size, F64, shared).leaves.values()
    row = torch.randperm(size[1])
    gramian = task_grad_gramian(x, d)
    assert_close(task_grad_gramian(x[..., row, :], d[:, row]), gramian)
    # Samples without a gradient are as if deleted.
    longer = torch.cat([d, torch.zeros(size[0], 13, size[3])], 1)
    more = torch.cat([x, torch.randn(*x.shape[:-2], 13, size[2])], -2)
    assert_close(task_grad_gramian(more, longer), gramian)
    assert_close(task_grad_norms(more, longer), gramian.diagonal().sqrt())


@pytest.mark.parametrize("op", OPS)
def test_gradient_at_zero_is_zero(backend: str, op: Any) -> None:
    problem = task_grads_problem(op, (2, 4, 3, 5))
    grad = solve(problem.put(grad_outputs=torch.zeros(2, 4, 5)))[-1]
    assert (grad == 0).all()


@pytest.mark.parametrize("op", OPS)
def test_expanded(backend: str, op: Any) -> None:
    x, d = task_grads_problem(op, (5, 20, 12, 6), F64).leaves.values()
    expanded = d[:1].expand(5, -1, -1)
    assert_close(op(x, expanded), op(x, expanded.contiguous()))


def test_large_half_precision_does_not_overflow(kernels: str) -> None:
    x, d = torch.full((64, 64), 200.0).half(), torch.full((2, 64, 8), 100.0).half()
    assert_close(task_grad_norms(x, d), materialised(x, d).diagonal().sqrt(), torch.float32)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
    ("x", "d", "error", "message"),
    [
        (torch.ones(4, 3), torch.ones(4, 2), ValueError, "grad_outputs: expected shape"),
        (torch.ones(5, 3), torch.ones(2, 4, 2), ValueError, "inputs: .* N = 4, got"),
        (torch.ones(3, 4, 3), torch.ones(2, 4, 2), ValueError, "inputs: .* T = 2"),
        (torch.ones(4), torch.ones(2, 4, 2), ValueError, "inputs"),
        (torch.ones(4, 3).int(), torch.ones(2, 4, 2), TypeError, "inputs: expected float32"),
        (torch.ones(4, 3), None, TypeError, "grad_outputs: expected a tensor"),
        (torch.ones(4, 3), torch.ones(2, 4, 2, device="meta"), ValueError, "device"),
    ],
)
def test_wrong_arguments(op: Any, x: Any, d: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        op(x, d)
