"""Per-element formulas and launch helpers that the Triton kernels share; see csrc/math.h."""

from __future__ import annotations

import struct
from contextlib import AbstractContextManager, nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastmtl.backends.native.memory import address

# How q^gamma is computed: the common exponents need no exp.
ANY_GAMMA = 3


def gamma_kind(gamma: float) -> int:
    """0, 1 and 2 for these exponents, ANY_GAMMA otherwise."""
    return int(gamma) if gamma in (0, 1, 2) else ANY_GAMMA


def halves(value: float) -> tuple[float, float]:
    """A number as the sum of two float32: Triton passes scalars in single precision."""
    high = struct.unpack("f", struct.pack("f", value))[0]
    return high, value - high


def real(tensor: Tensor) -> tl.dtype:
    """The type in which the elements of a tensor accumulate."""
    return tl.float64 if tensor.dtype == torch.float64 else tl.float32


def device_of(tensor: Tensor, *others: Tensor | None) -> AbstractContextManager[object]:
    """Makes a tensor's device the current one, on which Triton launches; it and the others are what
    a caller gave, which Triton would read at address 0 where they have no memory.

    Raises:
        ValueError: for a tensor of zeros without memory.
    """
    for given in (tensor, *others):
        address(given)
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def bytes_of(labels: Tensor) -> Tensor:
    """Bool as uint8, which Triton loads everywhere."""
    return labels.view(torch.uint8) if labels.dtype == torch.bool else labels


@triton.jit
def joined(high, low, REAL: tl.constexpr):
    """The number that `halves` took apart, of shape (1,)."""
    return tl.zeros((1,), REAL) + high + low


@triton.jit
def twice_atanh(s):
    """2 atanh(s) = log((1 + s) / (1 - s)) for |s| <= 1/3, to full relative accuracy."""
    square = s * s
    terms: tl.constexpr = 17 if s.dtype == tl.float64 else 8
    series = square * 0 + 2.0 / (2 * terms - 1)
    for k in tl.static_range(2, terms + 1):
        series = series * square + 2.0 / (2 * (terms - k) + 1)
    return series * s


@triton.jit
def sigmoid(x):
    """p = sigmoid(x), q = 1 - p and their logarithms, each to full relative accuracy."""
    e = tl.exp(-tl.abs(x))
    large = 1 / (1 + e)
    small = e * large
    # log(1 + e) keeps its relative accuracy where e is small.
    softplus = twice_atanh(e / (2 + e))
    positive = x > 0
    p = tl.where(positive, large, small)
    q = tl.where(positive, small, large)
    log_p = tl.where(positive, 0.0, x) - softplus
    log_q = tl.where(positive, -x, 0.0) - softplus
    return p, q, log_p, log_q


@triton.jit
def power(q, log_q, gamma, KIND: tl.constexpr):
    if KIND == 0:
        result = q * 0 + 1
    elif KIND == 1:
        result = q
    elif KIND == 2:
        result = q * q
    else:
        result = tl.exp(gamma * log_q)
    return result


@triton.jit
def focal(x, gamma, KIND: tl.constexpr):
    """Focal loss -q^gamma log p of the margin x."""
    _, q, log_p, log_q = sigmoid(x)
    return -power(q, log_q, gamma, KIND) * log_p


@triton.jit
def focal_slope(x, gamma, KIND: tl.constexpr):
    """Its derivative q^gamma (gamma p log p - q)."""
    p, q, log_p, log_q = sigmoid(x)
    return power(q, log_q, gamma, KIND) * (gamma * p * log_p - q) if KIND else -q
