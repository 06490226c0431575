"""Norms and Gramians from matrix products, and the native kernels between the products."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from fastmtl.backends import task_grads as gram
from fastmtl.backends.native import task_grads as native
from fastmtl.ops import task_grad_gramian, task_grad_norms
from tests.axes import one_at_a_time
from tests.problems import check, task_grads_problem
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


def lower_triangle(size: int, *, like: Tensor) -> Tensor:
    out = F64 if like.dtype == F64 else torch.float32
    return torch.randn(size, size, dtype=out).tril()


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
        triangle, again = native._triangle(x), native._triangle(x)
    wanted = (x.double() @ x.double().mT).tril()
    wanted.diagonal(dim1=-2, dim2=-1).mul_(0.5)
    assert triangle.dtype == (F64 if x.dtype == F64 else torch.float32)
    assert torch.equal(triangle, again)
    assert torch.equal(triangle, triangle.tril())
    assert_close(triangle, wanted)


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


@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("case", SQUARES)
def test_squares(isa: str, case: dict[str, Any], own: bool) -> None:
    d = torch.randn(case["shape"]).to(case["dtype"])
    tasks, samples, _ = d.shape
    x = torch.randn(tasks, samples, 40) if own else torch.randn(samples, 40)
    triangle = (x @ x.mT).tril().to(F64 if d.dtype == F64 else torch.float32)
    squares = torch.empty(tasks, dtype=triangle.dtype)
    with threads(case["count"]):
        native._squares(d, triangle, squares)
    d = d.double()
    assert_close(squares, 2 * (d * (triangle.double() @ d)).sum((1, 2)))


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


@pytest.mark.parametrize("case", PAIRS)
def test_pairs(isa: str, case: dict[str, Any]) -> None:
    d = torch.randn(case["shape"]).to(case["dtype"])
    triangle = lower_triangle(d.shape[1], like=d)
    with threads(case["count"]):
        pairs, again = native._pairs(d, triangle), native._pairs(d, triangle)
    assert torch.equal(pairs, again)
    products = triangle.double() @ d.double()
    assert_close(pairs, d.double().flatten(1) @ products.flatten(1).T)
