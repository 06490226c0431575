"""How per-task gradient norms and Gramians are computed from matrix products, for any backend.

With S_j = d_j^T x and K = x x^T, <S_i, S_j> = <d_i, K d_j>: the left side is the direct form, the
right one the Gram form, which never holds a gradient. K is symmetric, so that with H its lower
triangle and half its diagonal

    <d_i, K d_j> = <d_i, H d_j> + <d_j, H d_i>

and the Gram form needs half the products of K. The forms differ in cost by shape; the cheaper one
is taken, in blocks that stay in the cache; a gradient of a single sample has rank one, and needs
neither. Products are torch's and what is between them is the backend's `row_dots`, or its
`squares` and `pairs` where it has better ones for triangular H. Products of two half operands are
half products where torch leaves their sums in float32 (`precision.factor`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fastmtl.backends.precision import accumulation_dtype, factor, full_precision, product

# row_dots(a (R, C), b (R, C) or (1, C), out (R,) float64, accumulate): out (+)= sum_c a * b
RowDots = Callable[[Tensor, Tensor, Tensor, bool], None]
# squares(x (N, I) or (T, N, I), d (T, N, O), out (T,) float64): out = 2 <d_j, H d_j>
GramSquares = Callable[[Tensor, Tensor, Tensor], None]
# pairs(x (N, I), d (T, N, O)): <d_i, H d_j>, (T, T)
GramPairs = Callable[[Tensor, Tensor], Tensor]

_BLOCK_ELEMENTS = 1 << 20
_CUDA_BLOCKS = 16  # times as large: there a launch costs more than a cache miss


def norms(
    inputs: Tensor,  # (N, I) or (T, N, I)
    grad_outputs: Tensor,  # (T, N, O)
    row_dots: RowDots,
    gram_squares: GramSquares | None = None,
) -> Tensor:
    """||d_j^T x||_F for every task, (T,)."""
    dtype = accumulation_dtype(inputs.dtype)
    x, d = inputs.contiguous(), grad_outputs.contiguous()
    squares = x.new_zeros(len(d), dtype=torch.float64)
    if d.numel() and x.numel():
        with full_precision(d.device):
            if d.shape[1] == 1:
                rows = d.to(dtype).flatten(1)
                row_dots(rows, rows, squares, False)
                squares *= x.to(squares.dtype).square().sum((-2, -1))
            elif not _gram_is_cheaper(x, d, products=0):
                _direct_squares(factor(x), factor(d), squares, row_dots)
            elif gram_squares is not None:
                gram_squares(x, d, squares)
            else:
                x, scale = _scaled(factor(x))
                _gram_squares(product(x, x.mT), d.to(dtype), squares, row_dots)
                squares *= scale.to(squares.dtype).square().flatten()
    # Rounding can leave a little less than 0 where all terms cancel; -inf is an overflow.
    return squares.abs_().sqrt_().to(dtype)


def gramian(
    inputs: Tensor,  # (N, I) or (T, N, I)
    grad_outputs: Tensor,  # (T, N, O)
    gram_pairs: GramPairs | None = None,
) -> Tensor:
    """<d_i^T x, d_j^T x> for every pair of tasks, (T, T), symmetric to the bit."""
    dtype = accumulation_dtype(inputs.dtype)
    x, d = inputs.contiguous(), grad_outputs.contiguous()
    half = d.new_zeros(len(d), len(d), dtype=dtype)
    if d.numel() and x.numel():
        with full_precision(d.device):
            if d.shape[1] == 1:
                rows, d = x.double().flatten(-2), d.double().flatten(1)  # (I,) or (T, I); (T, O)
                half.copy_(d @ d.T * torch.inner(rows, rows) / 2)
            elif x.dim() == 2 and _gram_is_cheaper(x, d, products=len(d)):
                half = (gram_pairs or _gram_pairs)(x, d)
            else:
                _add_direct_products(factor(x), factor(d), half)
                half /= 2
    result = half + half.T
    result.diagonal().abs_()
    return result


def _gram_squares(kernel: Tensor, d: Tensor, squares: Tensor, row_dots: RowDots) -> None:
    _, samples, outputs = d.shape
    for block in _blocks(d, len(d), samples * outputs):
        mixed = (kernel if kernel.dim() == 2 else kernel[block]) @ d[block]
        row_dots(d[block].flatten(1), mixed.flatten(1), squares[block], False)


def _direct_squares(x: Tensor, d: Tensor, squares: Tensor, row_dots: RowDots) -> None:
    for block in _blocks(d, len(d), d.shape[2] * x.shape[-1]):
        grads = product(d[block].mT, x if x.dim() == 2 else x[block]).flatten(1)
        row_dots(grads, grads, squares[block], False)


def _gram_pairs(x: Tensor, d: Tensor) -> Tensor:
    tasks, samples, outputs = d.shape
    dtype = accumulation_dtype(x.dtype)
    (x, scale), d = _scaled(factor(x)), d.to(dtype)
    half_kernel = product(x, x.mT)
    half_kernel.tril_().diagonal().mul_(0.5)
    half_kernel *= scale
    result = d.new_zeros(tasks, tasks)
    for rows in _blocks(d, samples, tasks * outputs, least=64, most=128):
        mixed = half_kernel[rows, : rows.stop] @ d[:, : rows.stop]
        result.addmm_((d[:, rows] * scale).flatten(1), mixed.flatten(1).T)
    return result


def _scaled(x: Tensor) -> tuple[Tensor, Tensor]:
    """Matrices divided by a power of 2, (1, 1) or (T, 1, 1), and that: their products neither
    overflow nor vanish where gradients do not."""
    dtype = accumulation_dtype(x.dtype)
    if x.dtype == torch.float16:  # float32 holds its products; divided, it lost small numbers
        return x, x.new_ones(*x.shape[:-2], 1, 1, dtype=dtype)
    largest = torch.linalg.vector_norm(x, torch.inf, (-2, -1), keepdim=True, dtype=dtype)
    power = largest / (2 * torch.frexp(largest).mantissa)
    scale = torch.where((largest > 0) & (largest < torch.inf), power, 1)
    return x / scale.to(x.dtype), scale


def _add_direct_products(x: Tensor, d: Tensor, result: Tensor) -> None:
    tasks, _, outputs = d.shape
    for block in _blocks(d, outputs, tasks * x.shape[-1]):
        grads = product(d[:, :, block].mT, x).flatten(1)
        result.addmm_(grads, grads.T)


def _gram_is_cheaper(x: Tensor, d: Tensor, products: int) -> bool:
    tasks, samples, outputs = d.shape
    kernels = 1 if x.dim() == 2 else tasks
    return gram_is_cheaper(kernels, tasks, samples, x.shape[-1], outputs, products)


def gram_is_cheaper(
    kernels: int, tasks: int, samples: int, features: int, outputs: int, products: int
) -> bool:
    """Compare the multiplications of both forms; `kernels` matrices x x^T, `products` pairs of
    gradients a task."""
    pairs = tasks * products
    gram = samples * (
        kernels * samples * features + tasks * samples * outputs // 2 + pairs * outputs
    )
    direct = outputs * features * (tasks * samples + max(pairs, tasks))
    return gram < direct


def _blocks(
    d: Tensor, count: int, elements_each: int, least: int = 1, most: int = 1 << 48
) -> Iterator[slice]:
    scale = _CUDA_BLOCKS if d.is_cuda else 1
    step = min(max(least, scale * _BLOCK_ELEMENTS // max(elements_each, 1)), scale * most)
    for begin in range(0, count, step):
        yield slice(begin, min(begin + step, count))
