"""Matrix products on the CPU, by the library that is fastest on the processor."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

# Below so many multiplications one batched call beats a call for every product.
_SMALL = 1 << 20
# Elements of a product that is converted while it lies in cache.
_IN_CACHE = 1 << 20
# Elements of an operand of which no copy is made as a whole.
_LARGE = 1 << 22


def matmul(a: Tensor, b: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    """The product of a (M, K) and b (K, N), accumulated in float32 or wider, in `dtype` or else in
    theirs."""
    dtype = dtype or a.dtype
    if not multiplies(a.dtype):
        return matmul(a.float(), b.float()).to(dtype)
    if dtype != a.dtype:
        return _converted(a, b, dtype)
    if not _takes_onednn(a):
        # Halves are multiplied at half the speed where the left ones lie by columns.
        return torch.mm(a.contiguous() if a.itemsize == 2 else a, b)
    operands = _dense(a), _dense(b).t()
    product = torch.ops.mkldnn._linear_pointwise(*operands, None, "none", [], "")
    return cast(Tensor, product)


def _converted(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """The product in blocks of rows, which are still in cache where they are converted."""
    out = a.new_empty((a.shape[0], b.shape[1]), dtype=dtype)
    rows = max(1, _IN_CACHE // b.shape[1])
    for begin in range(0, a.shape[0], rows):
        block = slice(begin, begin + rows)
        out[block] = matmul(a[block], b)
    return out


def bmm(a: Tensor, b: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The products of a (T, M, K) and b (T, K, N), in `out` (T, M, N) if it is given, whatever its
    dtype."""
    if not multiplies(a.dtype):
        product = bmm(a.float(), b.float())
        return product.to(a.dtype) if out is None else out.copy_(product)
    if out is not None and out.dtype != a.dtype:
        return out.copy_(bmm(a, b))
    if not _takes_onednn(a) or a.shape[1] * a.shape[2] * b.shape[2] < _SMALL:
        # A strided `out` costs torch.bmm a copy of all its operands.
        if out is None or out.is_contiguous():
            return torch.bmm(a, b, out=out)
        return out.copy_(torch.bmm(a, b))
    if out is None:
        if a.shape[0] == 1:
            return matmul(a[0], b[0]).unsqueeze(0)
        out = a.new_empty((a.shape[0], a.shape[1], b.shape[2]))
    # oneDNN copies a transposed operand, so a large one is multiplied in blocks of its rows.
    copied = a.stride(2) != 1
    rows = max(1, _LARGE // a.shape[2]) if copied else a.shape[1]
    for index in range(a.shape[0]):
        for begin in range(0, a.shape[1], rows):
            block = slice(begin, begin + rows)
            out[index, block] = matmul(a[index, block], b[index])
    return out


def _dense(matrix: Tensor) -> Tensor:
    """`matrix` without gaps between its rows or columns, for which oneDNN has no fast kernel."""
    return matrix if matrix.t().is_contiguous() else matrix.contiguous()


def _takes_onednn(a: Tensor) -> bool:
    return a.dtype == torch.float32 and a.numel() > 0 and _mkl_is_held_back()


@lru_cache
def multiplies(dtype: torch.dtype) -> bool:
    """Whether the processor multiplies matrices of `dtype` at least as fast as float32 ones.

    Elsewhere halves are widened element by element within a product, which takes longer than to
    widen them before it.
    """
    if dtype == torch.bfloat16:
        return _processor_has("avx512_bf16") or _processor_has("amx_tile")
    if dtype == torch.float16:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return True


def _processor_has(feature: str) -> bool:
    # Not every torch knows of every feature.
    known = getattr(torch.cpu, f"_is_{feature}_supported", None)
    return known is not None and bool(known())


@lru_cache
def _mkl_is_held_back() -> bool:
    """Whether torch.mm runs on half the vector width that the processor has.

    MKL takes its AVX2 kernels on AMD processors with AVX-512; oneDNN, which torch has on board,
    goes by what the processor can do.
    """
    if not torch.backends.mkl.is_available() or not torch.backends.mkldnn.is_available():
        return False
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    cpuinfo = Path("/proc/cpuinfo")
    amd = cpuinfo.exists() and "AuthenticAMD" in cpuinfo.read_text()
    return amd and hasattr(torch.ops.mkldnn, "_linear_pointwise")
