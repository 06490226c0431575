from __future__ import annotations

import pytest
import torch

from fastmtl.backends import gemm
from tests.tolerances import assert_close


def test_products_by_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(gemm, "_mkl_is_held_back", lambda: True)
    monkeypatch.setattr(gemm, "_SMALL", 0)
    monkeypatch.setattr(gemm, "_LARGE", 1000)
    wide = torch.randn(3, 40, 64)
    for a, b in ((wide[:, :, :32], wide[:, :32]), (wide.mT, wide), (wide, wide.mT)):
        for product, wanted in (
            (gemm.bmm(a, b), torch.bmm(a.double(), b.double())),
            (gemm.matmul(a[0], b[0]), a[0].double() @ b[0].double()),
        ):
            assert_close(product, wanted)


@pytest.mark.parametrize("held_back", [True, False])
def test_products_into_given_memory(held_back: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if held_back and not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(gemm, "_mkl_is_held_back", lambda: held_back)
    monkeypatch.setattr(gemm, "_SMALL", 0)
    a, b = torch.randn(3, 9, 5), torch.randn(3, 5, 7)
    for out in (torch.empty(3, 9, 7), torch.empty(9, 3, 7).transpose(0, 1)):
        assert gemm.bmm(a, b, out=out) is out
        assert_close(out, torch.bmm(a.double(), b.double()))


@pytest.mark.parametrize("multiplied", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_products_of_halves(
    multiplied: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gemm, "multiplies", lambda of: multiplied or of == torch.float32)
    monkeypatch.setattr(gemm, "_IN_CACHE", 20)
    a, b = torch.randn(3, 5, 9).to(dtype).mT, torch.randn(3, 5, 7).to(dtype)
    wanted = torch.bmm(a.double(), b.double())
    for product in (gemm.bmm(a, b), gemm.matmul(a[0], b[0])):
        assert product.dtype == dtype
        assert_close(product, wanted if product.dim() == 3 else wanted[0])
    for out in (torch.empty(3, 9, 7), torch.empty(9, 3, 7, dtype=dtype).transpose(0, 1)):
        gemm.bmm(a, b, out=out)
        assert_close(out, wanted, dtype)
        product = gemm.matmul(a[1], b[1], dtype=out.dtype)
        assert product.dtype == out.dtype
        assert_close(product, wanted[1], dtype)
