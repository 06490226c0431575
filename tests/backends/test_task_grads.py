"""Norms and Gramians from matrix products, and the native kernels between the products."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from fastmtl.backends import precision
from fastmtl.backends import task_grads as gram
from fastmtl.backends.native import task_grads as native
from fastmtl.backends.precision import accumulation_dtype
from fastmtl.ops import task_grad_gramian, task_grad_norms
from tests.axes import one_at_a_time
from tests.problems import check, closed_form, exact, solve, task_grads_problem
from tests.tolerances import assert_close

F64 = torch.float64
NARROW = [torch.bfloat16, torch.float16]


def test_both_forms_are_taken() -> None:
    few, many = torch.empty(7, 20, 100), torch.empty(7, 4000, 10)
    for products in (0, 7):
        assert gram._gram_is_cheaper(torch.empty(20, 1000), few, products)
        assert not gram._gram_is_cheaper(torch.empty(4000, 10), many, products)


@pytest.mark.parametrize("op", [task_grad_norms, task_grad_gramian])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize("form", ["gram", "direct"])
def test_forms_and_blocks(
    backend: str, op: Any, shared: bool, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either form gives the same, whichever is the cheaper one, and in small blocks too."""
    monkeypatch.setattr(gram, "_gram_is_cheaper", lambda *_, **__: form == "gram")
    for elements in (gram._BLOCK_ELEMENTS, 100):
        monkeypatch.setattr(gram, "_BLOCK_ELEMENTS", elements)
        for sizes in ((7, 20, 33, 12), (3, 90, 5, 4), (5, 64, 64, 8), (1, 2, 1, 1)):
            check(task_grads_problem(op, sizes, F64, shared))


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def half_of(x: Tensor) -> Tensor:
    """The lower triangle of x x^T, with half its diagonal."""
    triangle = (x.double() @ x.double().mT).tril()
    triangle.diagonal(dim1=-2, dim2=-1).mul_(0.5)
    return triangle


TRIANGLES = one_at_a_time(
    # Tiles and vectors with tails, columns in several blocks.
    {"shape": (53, 1100), "dtype": torch.float32, "count": 2},
    {
        "shape": [(1, 1), (1, 700), (2, 3), (7, 1), (13, 16), (25, 513), (64, 1024), (3, 19, 33)],
        "dtype": [F64, *NARROW],
        "count": [1, 5],
    },
    *({"shape": (25, 513), "dtype": dtype} for dtype in (F64, *NARROW)),
    {"shape": (3, 19, 33), "count": 5},
    {"shape": (7, 1), "count": 5},
)


@pytest.mark.parametrize("case", TRIANGLES)
def test_triangle(isa: str, case: dict[str, Any]) -> None:
    x = torch.randn(case["shape"]).to(case["dtype"])
    with threads(case["count"]):
        (triangle, scale), (again, _) = native._triangle(x), native._triangle(x)
    assert triangle.dtype == (F64 if x.dtype == F64 else torch.float32)
    assert torch.equal(triangle, again)
    assert torch.equal(triangle, triangle.tril())
    assert_close(triangle, half_of(x))
    assert (scale == 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("power", [-140, -90, 90, 126])
def test_scale_of_the_triangle(isa: str, dtype: torch.dtype, power: int) -> None:
    x = torch.randn(3, 19, 33, dtype=dtype).clamp(-3.9, 3.9)
    x[1] *= 2.0**power * (1 if dtype == torch.float32 else 2.0**power)
    triangle, scale = native._triangle(x)
    assert (scale[[0, 2]] == 1).all()
    assert scale[1] == 2.0 ** x[1].abs().max().log2().floor()
    x = x.double() / scale.double()[:, None, None]
    assert_close(triangle, native._triangle(x)[0], dtype)


SQUARES = one_at_a_time(
    # T, N, O
    {"shape": (3, 25, 513), "dtype": torch.float32, "count": 1},
    {
        "shape": [(2, 14, 1), (2, 9, 1100), (1, 1, 1), (4, 36, 64)],
        "dtype": [F64, *NARROW],
        "count": [3],
    },
    {"shape": (2, 14, 1), "dtype": F64},
)


# Of inputs and gradients: what stays in float32 only as a product of the two.
SCALES = [(1.0, 1.0), (1e25, 1e-20), (1e-30, 1e25)]


@pytest.mark.parametrize("scales", SCALES, ids=str)
@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("case", SQUARES)
def test_squares(isa: str, case: dict[str, Any], own: bool, scales: tuple[float, float]) -> None:
    if case["dtype"] == torch.float16:
        scales = (1.0, 1.0)
    tasks, samples, _ = case["shape"]
    d = (torch.randn(case["shape"]) * scales[1]).to(case["dtype"])
    x = (torch.randn((tasks, samples, 40) if own else (samples, 40)) * scales[0]).to(d.dtype)
    squares = torch.empty(tasks, dtype=F64)
    with threads(case["count"]):
        native._squares(x, d, squares)
    d = d.double()
    assert_close(squares, 2 * (d * (half_of(x) @ d)).sum((1, 2)), accumulation_dtype(x.dtype))


PAIRS = one_at_a_time(
    # T, N, O: tiles of tasks, strips of columns and chunks of rows with tails.
    {"shape": (13, 131, 70), "dtype": torch.float32, "count": 2},
    {
        "shape": [(1, 1, 1), (3, 2, 5), (7, 33, 70), (13, 50, 9), (26, 16, 100)],
        "dtype": [F64, *NARROW],
        "count": [1, 7],
    },
    *({"shape": (5, 131, 33), "dtype": dtype} for dtype in (F64, *NARROW)),
    # More than a thread may hold in memory at a time.
    {"shape": (200, 300, 40), "count": 1},
)


@pytest.mark.parametrize("scales", SCALES, ids=str)
@pytest.mark.parametrize("case", PAIRS)
def test_pairs(isa: str, case: dict[str, Any], scales: tuple[float, float]) -> None:
    if case["dtype"] == torch.float16:
        scales = (1.0, 1.0)
    d = (torch.randn(case["shape"]) * scales[1]).to(case["dtype"])
    x = (torch.randn(d.shape[1], 40) * scales[0]).to(d.dtype)
    with threads(case["count"]):
        pairs, again = native._pairs(x, d), native._pairs(x, d)
    assert torch.equal(pairs, again)
    products = half_of(x) @ d.double()
    assert_close(pairs, d.double().flatten(1) @ products.flatten(1).T)


@pytest.mark.parametrize("shape", [(7, 33, 70), (13, 131, 70), (26, 16, 100)], ids=str)
def test_number_of_threads_changes_no_bit(isa: str, shape: tuple[int, int, int]) -> None:
    d, x = torch.randn(shape), torch.randn(shape[1], 700)
    results = []
    for count in (1, 2, 3, 8):
        with threads(count):
            squares = torch.empty(shape[0], dtype=F64)
            native._squares(x, d, squares)
            results.append((squares, native._pairs(x, d), *native._triangle(x)))
    for other in results[1:]:
        assert all(torch.equal(one, first) for one, first in zip(other, results[0], strict=True))


@pytest.mark.parametrize("op", [task_grad_norms, task_grad_gramian])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize("samples", [1, 12])
@pytest.mark.parametrize("scales", [(1e20, 1e-20), (1e-20, 1e20)], ids=str)
def test_products_inside_the_gram_form_may_be_out_of_range(
    isa: str, op: Any, shared: bool, samples: int, scales: tuple[float, float]
) -> None:
    """The gradients are of size 1, x x^T and what else the Gram form has is outside float32."""
    for dtype in (torch.float32, torch.bfloat16):
        problem = task_grads_problem(op, (5, samples, 40, 33), dtype, shared)
        x, d = problem.leaves.values()
        check(problem.put(inputs=x * scales[0], grad_outputs=d * scales[1]), 4)


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_squares_of_norms_may_be_out_of_range(kernels: str, shared: bool, scale: float) -> None:
    for sizes in ((5, 12, 40, 33), (5, 1, 40, 33), (3, 40, 6, 5)):
        problem = task_grads_problem(task_grad_norms, sizes, shared=shared)
        d = problem.leaves["grad_outputs"] * scale
        assert_close(
            task_grad_norms(problem.leaves["inputs"], d), exact(problem.put(grad_outputs=d))[0]
        )


@pytest.mark.parametrize("op", [task_grad_norms, task_grad_gramian])
@pytest.mark.parametrize("sizes", [(5, 20, 30, 12), (3, 40, 6, 5), (3, 1, 6, 5)], ids=str)
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("place", ["inputs", "grad_outputs"])
def test_what_is_not_finite_is_so_on_every_backend(
    kernels: str, op: Any, sizes: Any, value: float, place: str
) -> None:
    """Where it is inf in the reference, the Gram form may have NaN, and so the gradient of that."""
    problem = task_grads_problem(op, sizes)
    problem.leaves[place].view(-1)[3] = value
    (one, *grads), (other, *wanted) = solve(problem), closed_form(problem)
    assert torch.equal(one.isfinite(), other.isfinite())
    assert not other.isfinite().all()
    for grad, expected in zip(grads, wanted, strict=True):
        assert (grad.isfinite() <= expected.isfinite()).all()


def materialised(x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Norms and Gramian of the gradients, in float64."""
    grads = (d.double().mT @ x.double()).flatten(1)
    return grads.norm(dim=1), grads @ grads.T


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize("sizes", [(5, 53, 200, 130), (3, 97, 15, 30), (3, 1, 6, 5)], ids=str)
def test_halves_lose_nothing_in_products(
    kernels: str, dtype: torch.dtype, shared: bool, sizes: tuple[int, int, int, int]
) -> None:
    """The results are as near to float64 as those of float32 inputs with the same values."""
    problem = task_grads_problem(task_grad_norms, sizes, dtype, shared)
    x, d = problem.leaves.values()
    norms, gramian = materialised(x, d)
    assert_close(task_grad_norms(x, d), norms, torch.float32)
    assert_close(task_grad_gramian(x, d), gramian, torch.float32)


@pytest.fixture
def halves_multiplied(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """Lets the CPU take the way of a device that multiplies halves; the dtypes it multiplied."""
    multiplied = []

    def multiply(a: Tensor, b: Tensor, *, out_dtype: torch.dtype) -> Tensor:
        multiplied.append(a.dtype)
        assert a.dtype == b.dtype
        return a.to(out_dtype) @ b.to(out_dtype)

    monkeypatch.setattr(precision, "_multiplies_halves", lambda x: x.itemsize == 2)
    for name in ("mm", "bmm"):
        monkeypatch.setattr(torch, name, multiply)
    return multiplied


@pytest.mark.parametrize("form", ["gram", "direct"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize(
    ("dtype", "scales"),
    [
        (torch.bfloat16, (1.0, 1.0)),
        (torch.bfloat16, (1e20, 1e-20)),
        (torch.bfloat16, (1e-20, 1e20)),
        (torch.float16, (1.0, 1.0)),
        (torch.float16, (1e4, 1e-4)),
    ],
    ids=str,
)
def test_products_of_halves(
    halves_multiplied: list[torch.dtype],
    dtype: torch.dtype,
    scales: tuple[float, float],
    shared: bool,
    form: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gram, "_gram_is_cheaper", lambda *_, **__: form == "gram")
    problem = task_grads_problem(task_grad_norms, (5, 33, 40, 12), torch.float32, shared)
    x, d = problem.leaves.values()
    x.mul_(scales[0])[..., 7, :].mul_(1e-3)  # a sample that is small beside the others
    x, d = x.to(dtype), (d * scales[1]).to(dtype)
    norms, gramian = materialised(x, d)

    def dots(a: Tensor, b: Tensor, out: Tensor, accumulate: bool) -> None:
        out.copy_((a.double() * b.double()).sum(1) + out * accumulate)

    assert_close(gram.norms(x, d, dots), norms)
    assert_close(gram.gramian(x, d), gramian)
    assert set(halves_multiplied) == {dtype}


def test_small_samples_of_float16_are_kept(halves_multiplied: list[torch.dtype]) -> None:
    """Beside the largest number, those of the sample that alone has a gradient."""
    x = torch.tensor([[6e4, 5e4], [3e-3, 1e-3]]).half()
    d = torch.tensor([[[0.0], [1.0]], [[0.0], [2.0]]]).half()
    _, gramian = materialised(x, d)
    assert_close(gram._gram_pairs(x, d) * 2, gramian)


@pytest.mark.parametrize(
    ("dtype", "capability", "multiplies"),
    [
        (torch.bfloat16, (9, 0), True),
        (torch.bfloat16, (7, 5), False),
        (torch.float16, (7, 5), True),
        (torch.float32, (9, 0), False),
    ],
    ids=str,
)
def test_what_a_device_multiplies(
    dtype: torch.dtype,
    capability: tuple[int, int],
    multiplies: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    with FakeTensorMode():
        x = torch.empty(4, 8, dtype=dtype, device="cuda")
        one, several = precision.factor(x), precision.factor(torch.empty_like(x).expand(3, 4, 8))
        assert (one.dtype == x.dtype) == (multiplies or dtype == torch.float32)
        for found in (
            precision.product(one, one.mT),
            precision.product(several, one.mT),
            precision.product(several, several.mT),
        ):
            assert found.dtype == torch.float32
            assert found.shape[-2:] == (4, 4)
