from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import fastmtl
from fastmtl.backends import gram, native
from fastmtl.ops import task_grad_gramian, task_grad_norms
from tests.tolerances import assert_close

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
# T, N, I, O: both the direct and the Gram form are the cheaper one in some of them.
SIZES = [
    (7, 20, 33, 12),
    (3, 90, 5, 4),
    (1, 1, 1, 1),
    (4, 1, 9, 2),
    (30, 6, 40, 17),
    (5, 64, 64, 8),
    (2, 53, 200, 300),
    (3, 97, 300, 15),
]
EMPTY = [(0, 4, 3, 2), (3, 0, 4, 2), (3, 4, 0, 2), (3, 4, 2, 0)]
OPS = [task_grad_norms, task_grad_gramian]


def problem(
    sizes: tuple[int, int, int, int], dtype: torch.dtype, shared: bool
) -> tuple[Tensor, Tensor]:
    tasks, samples, features, outputs = sizes
    x = torch.randn((samples, features) if shared else (tasks, samples, features))
    d = torch.randn(tasks, samples, outputs)
    if tasks > 1:
        d[1] = 0
    return x.to(dtype), d.to(dtype)


def materialised(x: Tensor, d: Tensor) -> Tensor:
    """The Gramian by one autograd.grad per task, in float64."""
    weight = torch.zeros(d.shape[2], x.shape[-1], dtype=torch.float64, requires_grad=True)
    grads = []
    for task in range(len(d)):
        y = (x if x.dim() == 2 else x[task]).double() @ weight.T
        grads.append(torch.autograd.grad(y, weight, d[task].double())[0].flatten())
    stacked = torch.stack(grads) if grads else torch.zeros(0, 1, dtype=torch.float64)
    return stacked @ stacked.T


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES + EMPTY)
@pytest.mark.parametrize("shared", [True, False])
def test_agrees_with_autograd(
    backend: str, sizes: tuple[int, int, int, int], dtype: torch.dtype, shared: bool
) -> None:
    x, d = problem(sizes, dtype, shared)
    wanted = materialised(x, d)
    out = torch.float64 if dtype == torch.float64 else torch.float32
    norms, gramian = task_grad_norms(x, d), task_grad_gramian(x, d)
    assert norms.dtype == gramian.dtype == out
    assert_close(norms, wanted.diagonal().sqrt(), out)
    assert_close(gramian, wanted, out)
    if backend != "reference":
        assert torch.equal(gramian, gramian.T)


def test_both_forms_are_taken() -> None:
    few, many = torch.empty(7, 20, 100), torch.empty(7, 4000, 10)
    for products in (0, 7):
        assert gram._gram_is_cheaper(torch.empty(20, 1000), few, products)
        assert not gram._gram_is_cheaper(torch.empty(4000, 10), many, products)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(
    "shape",
    [(1, 1), (1, 700), (2, 3), (7, 1), (13, 16), (25, 513), (64, 1024), (53, 1100), (3, 19, 33)],
)
def test_native_triangle(
    backend: str, shape: tuple[int, ...], threads: int, dtype: torch.dtype
) -> None:
    if backend != "native":
        pytest.skip("a kernel of the native backend")
    x = torch.randn(shape).to(dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        triangle = native.grads._gram_triangle(x)
        again = native.grads._gram_triangle(x)
    finally:
        torch.set_num_threads(before)
    wanted = (x.double() @ x.double().mT).tril()
    wanted.diagonal(dim1=-2, dim2=-1).mul_(0.5)
    out = torch.float64 if dtype == torch.float64 else torch.float32
    assert triangle.dtype == out
    assert torch.equal(triangle, again)
    assert torch.equal(triangle, triangle.tril())
    assert_close(triangle, wanted, out)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("sizes", [(2, 14, 600, 1), (3, 25, 40, 513), (2, 9, 300, 1100)])
def test_native_squares(backend: str, sizes: tuple[int, int, int, int], threads: int) -> None:
    if backend != "native":
        pytest.skip("a kernel of the native backend")
    x, d = problem(sizes, torch.float64, shared=False)
    triangle = (x @ x.mT).tril()
    squares = torch.empty(len(d), dtype=torch.float64)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        native.grads._gram_squares(d, triangle, squares)
    finally:
        torch.set_num_threads(before)
    assert_close(squares, 2 * (d * (triangle @ d)).sum((1, 2)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize(
    "shape",
    # The last has more in a thread's memory than it may hold at a time.
    [(1, 1, 1), (3, 2, 5), (7, 33, 70), (13, 50, 9), (5, 131, 33), (26, 16, 100), (200, 300, 40)],
)
def test_native_pairs(
    backend: str, shape: tuple[int, int, int], threads: int, dtype: torch.dtype
) -> None:
    if backend != "native":
        pytest.skip("a kernel of the native backend")
    d = torch.randn(shape).to(dtype)
    out = torch.float64 if dtype == torch.float64 else torch.float32
    triangle = torch.randn(shape[1], shape[1], dtype=out).tril()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        pairs = native.grads._gram_pairs(d, triangle)
        again = native.grads._gram_pairs(d, triangle)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(pairs, again)
    products = triangle.double() @ d.double()
    assert_close(pairs, d.double().flatten(1) @ products.flatten(1).T, out)


@pytest.mark.parametrize("op", OPS)
def test_blocks(backend: str, op: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram, "_BLOCK_ELEMENTS", 100)
    for sizes in SIZES:
        for shared in (True, False):
            x, d = problem(sizes, torch.float64, shared)
            gramian = materialised(x, d)
            wanted = gramian if op is task_grad_gramian else gramian.diagonal().sqrt()
            assert_close(op(x, d), wanted)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("shared", [True, False])
def test_gradcheck(backend: str, op: Any, shared: bool) -> None:
    x = torch.randn((4, 3) if shared else (2, 4, 3), dtype=torch.float64, requires_grad=True)
    d = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(op, (x, d))


@pytest.mark.parametrize("op", OPS)
def test_gradient_at_zero_is_zero(backend: str, op: Any) -> None:
    x, d = torch.randn(4, 3, requires_grad=True), torch.zeros(2, 4, 5, requires_grad=True)
    op(x, d).sum().backward()
    assert d.grad is not None
    if backend == "native":
        assert (d.grad == 0).all()
    assert d.grad.isfinite().all()


@pytest.mark.parametrize("op", OPS)
def test_strides(backend: str, op: Any) -> None:
    x, d = problem((5, 20, 12, 6), torch.float64, shared=True)
    strided = op(x.T.contiguous().T, d.transpose(0, 2).contiguous().transpose(0, 2))
    assert_close(strided, op(x, d))
    expanded = d[:1].expand(5, -1, -1)
    assert_close(op(x, expanded), op(x, expanded.contiguous()))


def test_permutation_and_scale(backend: str) -> None:
    x, d = problem((6, 15, 8, 9), torch.float64, shared=True)
    gramian, order = task_grad_gramian(x, d), torch.randperm(6)
    assert_close(task_grad_gramian(x, d[order]), gramian[order][:, order])
    factor = torch.rand(6, dtype=torch.float64)
    scaled = factor[:, None, None] * d
    assert_close(task_grad_gramian(x, scaled), factor[:, None] * gramian * factor)
    assert_close(task_grad_norms(x, scaled), factor * gramian.diagonal().sqrt())


def test_large_half_precision_does_not_overflow(backend: str) -> None:
    x, d = torch.full((64, 64), 200.0).half(), torch.full((2, 64, 8), 100.0).half()
    assert_close(task_grad_norms(x, d), materialised(x, d).diagonal().sqrt(), torch.float32)


@pytest.mark.parametrize("op", OPS)
def test_second_derivative(op: Any) -> None:
    if fastmtl.backends.unavailable("native"):
        pytest.skip("the reference differentiates twice")
    x, d = torch.randn(4, 3), torch.randn(2, 4, 5, requires_grad=True)
    (grad,) = torch.autograd.grad(op(x, d).sum(), d, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("shared", [True, False])
def test_registered_op(backend: str, op: Any, shared: bool) -> None:
    x, d = problem((3, 5, 4, 2), torch.float64, shared)
    if op is task_grad_norms:
        d = d + 0.1
    registered = getattr(torch.ops.fastmtl, op.__name__).default
    torch.library.opcheck(registered, (x.requires_grad_(), d.requires_grad_()))


@pytest.mark.parametrize("op", OPS)
def test_compiled(backend: str, op: Any) -> None:
    x, d = problem((3, 5, 4, 2), torch.float32, True)
    compiled = torch.compile(op, fullgraph=True, backend="aot_eager")
    assert_close(compiled(x, d), op(x, d).double())


@pytest.mark.parametrize("op", OPS)
def test_autocast_promotes(backend: str, op: Any) -> None:
    x, d = problem((3, 5, 4, 2), torch.float32, True)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(op(x, d.bfloat16()), op(x, d.bfloat16().float()).double())
    with pytest.raises(TypeError, match="grad_outputs: expected the dtype of inputs"):
        op(x, d.bfloat16())


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
