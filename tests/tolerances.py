"""The one table of tolerances: relative error by dtype, for every parity test of the suite."""

from __future__ import annotations

import torch
from torch import Tensor

RTOL = {
    torch.float64: 1e-10,
    torch.float32: 1e-5,
    torch.bfloat16: 1.6e-2,
    torch.float16: 2e-3,
}


def assert_close(
    actual: Tensor, expected: Tensor, dtype: torch.dtype | None = None, scale: float = 1.0
) -> None:
    """Compare with a float64 (or otherwise more precise) result, at the tolerance of `dtype`.

    `dtype` is that of the computation's inputs (default: that of `actual`); `scale` widens the
    tolerance for results that pass through that many roundings. The absolute tolerance is the
    relative one times the largest expected magnitude, so that sums that cancel are judged by the
    size of their terms.
    """
    dtype = actual.dtype if dtype is None else dtype
    expected = expected.to(torch.float64)
    finite = expected[expected.isfinite()]
    magnitude = finite.abs().max().item() if finite.numel() else 0.0
    rtol = RTOL[dtype] * scale
    torch.testing.assert_close(
        actual.to(torch.float64), expected, rtol=rtol, atol=rtol * magnitude, equal_nan=True
    )
