"""One element of the multi-label loss in Triton; see csrc/multilabel.h."""

from __future__ import annotations

import triton
import triton.language as tl

from fastmtl.backends.triton.formulas import sigmoid, twice_atanh

MOST_WHOLE = 4


@triton.jit
def minus_log(x, rest):
    """-log(x) for a normal x in (0, 1], whose rest is 1 - x to full relative accuracy."""
    # x = 2^n m with 2/3 < m <= 4/3.
    if x.dtype == tl.float64:
        number = x.to(tl.int64, bitcast=True)
        exponent = (number - 0x3FF0000000000000) >> 52
        mantissa = (number - (exponent << 52)).to(tl.float64, bitcast=True)
    else:
        number = x.to(tl.int32, bitcast=True)
        exponent = (number - 0x3F800000) >> 23
        mantissa = (number - (exponent << 23)).to(tl.float32, bitcast=True)
    fold = mantissa > 4.0 / 3
    folded = tl.where(fold, mantissa * 0.5, mantissa)
    n = exponent.to(x.dtype) + tl.where(fold, 1.0, 0.0)
    beyond = tl.where(n == 0, rest, 1 - folded)
    return twice_atanh(beyond / (1 + folded)) - n * 0.693147180559945309417 + (x - x)


@triton.jit
def wrong(x, positive, clip, CLIPPED: tl.constexpr):
    """p, q, v, 1 - v, -log(1 - v) and log v of a margin."""
    p, q, log_p, log_q = sigmoid(x)
    v, rest, loss, log = q, p, -log_p, log_q
    if CLIPPED:
        left = q - clip
        beyond = tl.where(left < 0, 0.0, left)
        total = p + clip
        total = tl.where(total > 1, 1.0, total)
        v = tl.where(positive, q, beyond)
        rest = tl.where(positive, p, total)
        loss = tl.where(positive, -log_p, minus_log(total, beyond))
        log = tl.where(positive, log_q, -minus_log(beyond, total))
    return p, q, v, rest, loss, log


@triton.jit
def focus(v, log, positive, gamma, POS: tl.constexpr, NEG: tl.constexpr):
    """v^gamma; POS and NEG are the powers where both are whole, or else -1."""
    if POS < 0:
        result = tl.exp(gamma * log)
    else:
        pos = v * 0 + 1
        for _ in tl.static_range(POS):
            pos = pos * v
        neg = v * 0 + 1
        for _ in tl.static_range(NEG):
            neg = neg * v
        result = tl.where(positive, pos, neg)
    return result


@triton.jit
def multilabel(
    z,
    positive,
    gamma,
    clip,
    poly,
    neg_scale,
    CLIPPED: tl.constexpr,
    POS: tl.constexpr,
    NEG: tl.constexpr,
):
    """The loss of a logit; gamma is that of the label."""
    x = tl.where(positive, z, -neg_scale * z)
    _, _, v, _, loss, log = wrong(x, positive, clip, CLIPPED)
    value = focus(v, log, positive, gamma, POS, NEG) * (loss + poly * v)
    return tl.where(positive, value, value / neg_scale)


@triton.jit
def multilabel_slope(
    z,
    positive,
    gamma,
    clip,
    poly,
    neg_scale,
    CLIPPED: tl.constexpr,
    POS: tl.constexpr,
    NEG: tl.constexpr,
    DETACH: tl.constexpr,
):
    """Its derivative with respect to the logit."""
    x = tl.where(positive, z, -neg_scale * z)
    p, q, v, rest, loss, log = wrong(x, positive, clip, CLIPPED)
    pq = p * q
    inside, outside = p, q
    if CLIPPED:
        inside = tl.where(positive, p, pq / tl.where(v == 0, 1.0, v))
        outside = tl.where(positive, q, pq / rest)
    terms = outside + poly * pq
    if not DETACH:
        terms += gamma * inside * (loss + poly * v)
    slope = focus(v, log, positive, gamma, POS, NEG) * terms
    if CLIPPED:
        slope = tl.where(v == 0, 0.0, slope)
    return tl.where(positive, -slope, slope)
