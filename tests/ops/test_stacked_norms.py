from __future__ import annotations

import pytest
import torch

from fastmtl.ops import stacked_norms
from tests.tolerances import assert_close

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SHAPES = [(7, 3, 5), (1, 1), (4,), (3, 70_001), (100, 33), (0, 4), (3, 0)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_float64(backend: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.randn(shape).to(dtype).requires_grad_()
    norms = stacked_norms(x)
    out = torch.float64 if dtype == torch.float64 else torch.float32
    assert norms.dtype == out
    x64 = x.detach().double().requires_grad_()
    wanted = x64.reshape(shape[0], -1 if x.numel() else 0).square().sum(1).sqrt()
    assert_close(norms, wanted.detach(), out)
    if x.numel():
        grad = torch.randn(shape[0])
        norms.backward(grad.to(out))
        wanted.backward(grad.double())
        assert x.grad is not None
        assert x64.grad is not None
        assert_close(x.grad, x64.grad)


def test_list_is_the_concatenation(backend: str) -> None:
    parts = [torch.randn(5, 3, 4), torch.randn(5), torch.randn(5, 0), torch.randn(5, 9)]
    whole = torch.cat([part.reshape(5, -1) for part in parts], 1)
    assert_close(stacked_norms(parts), stacked_norms(whole.double()), torch.float32)


def test_strides(backend: str) -> None:
    x = torch.randn(6, 4, 5)
    assert_close(stacked_norms(x.permute(2, 0, 1)), stacked_norms(x.permute(2, 0, 1).contiguous()))
    assert_close(stacked_norms(x[:, :1].expand(6, 4, 5)), 2 * stacked_norms(x[:, 0]))


def test_gradcheck(backend: str) -> None:
    parts = [torch.randn(3, size, dtype=torch.float64, requires_grad=True) for size in (1, 4)]
    torch.autograd.gradcheck(lambda *x: stacked_norms(list(x)), parts)


def test_gradient_at_zero_is_zero(backend: str) -> None:
    x = torch.zeros(2, 3, requires_grad=True)
    stacked_norms(x).sum().backward()
    assert x.grad is not None
    assert (x.grad == 0).all()


def test_registered_op(backend: str) -> None:
    parts = [torch.randn(3, 4, requires_grad=True), torch.randn(3, requires_grad=True)]
    torch.library.opcheck(torch.ops.fastmtl.stacked_norms.default, (parts,))


def test_compiled(backend: str) -> None:
    x = torch.randn(3, 40, requires_grad=True)
    compiled = torch.compile(lambda x: stacked_norms(x).sum(), fullgraph=True, backend="aot_eager")
    compiled(x).backward()
    assert x.grad is not None
    assert_close(x.grad, x.detach().double() / stacked_norms(x.detach().double())[:, None])


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
