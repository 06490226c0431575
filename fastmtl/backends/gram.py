"""How per-task gradient norms and Gramians are computed from matrix products, for any backend.

With S_j = d_j^T x, <S_i, S_j> = <d_i, (x x^T) d_j>: the left side is the direct form, the right one
the Gram form, which never holds a gradient. Their matrix products differ in cost by shape; the
cheaper form is taken, in blocks that stay in the cache. Products are torch's, and what is between
them is the backend's `row_dots`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from fastmtl.backends.reference import accumulation_dtype, full_precision

# row_dots(a (R, C), b (R, C) or (1, C), out (R,), accumulate): out (+)= sum_c a * b
RowDots = Callable[[Tensor, Tensor, Tensor, bool], None]

_BLOCK_ELEMENTS = 1 << 20


def norms(
    inputs: Tensor,  # (N, I) or (T, N, I)
    grad_outputs: Tensor,  # (T, N, O)
    row_dots: RowDots,
) -> Tensor:
    """||d_j^T x||_F for every task, (T,)."""
    x, d = _accumulated(inputs, grad_outputs)
    squares = d.new_zeros(len(d))
    if d.numel() and x.numel():
        with full_precision(d.device):
            _squared_norms(x, d, squares, row_dots)
    return squares.clamp_(min=0).sqrt_()


def gramian(
    inputs: Tensor,  # (N, I) or (T, N, I)
    grad_outputs: Tensor,  # (T, N, O)
) -> Tensor:
    """<d_i^T x, d_j^T x> for every pair of tasks, (T, T), symmetric to the bit."""
    x, d = _accumulated(inputs, grad_outputs)
    result = d.new_zeros(len(d), len(d))
    if d.numel() and x.numel():
        with full_precision(d.device):
            _add_products(x, d, result)
    result.diagonal().clamp_(min=0)
    return (result + result.T) / 2


def _squared_norms(x: Tensor, d: Tensor, squares: Tensor, row_dots: RowDots) -> None:
    tasks, samples, outputs = d.shape
    if _gram_is_cheaper(tasks, samples, x, outputs, products=0):
        kernel = x @ x.mT
        for block in _blocks(tasks, samples * outputs):
            product = (kernel if x.dim() == 2 else kernel[block]) @ d[block]
            row_dots(d[block].flatten(1), product.flatten(1), squares[block], False)
    else:
        for block in _blocks(tasks, outputs * x.shape[-1]):
            grads = (d[block].mT @ (x if x.dim() == 2 else x[block])).flatten(1)
            row_dots(grads, grads, squares[block], False)


def _add_products(x: Tensor, d: Tensor, result: Tensor) -> None:
    tasks, samples, outputs = d.shape
    if x.dim() == 2 and _gram_is_cheaper(tasks, samples, x, outputs, products=tasks):
        kernel = x @ x.T
        for block in _blocks(outputs, tasks * samples):
            part = d[:, :, block]
            result.addmm_(part.flatten(1), (kernel @ part).flatten(1).T)
    else:
        for block in _blocks(outputs, tasks * x.shape[-1]):
            grads = (d[:, :, block].mT @ x).flatten(1)
            result.addmm_(grads, grads.T)


def _accumulated(inputs: Tensor, grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
    dtype = accumulation_dtype(inputs.dtype)
    return inputs.to(dtype).contiguous(), grad_outputs.to(dtype).contiguous()


def _gram_is_cheaper(tasks: int, samples: int, x: Tensor, outputs: int, products: int) -> bool:
    """Compare the multiplications of both forms; `products` pairs of gradients a task."""
    features = x.shape[-1]
    kernels = 1 if x.dim() == 2 else tasks
    pairs = tasks * max(products, 1)
    gram = samples * (kernels * samples * features + tasks * samples * outputs + pairs * outputs)
    direct = outputs * features * (tasks * samples + pairs)
    return gram < direct


def _blocks(count: int, elements_each: int) -> Iterator[slice]:
    step = max(1, _BLOCK_ELEMENTS // max(elements_each, 1))
    for begin in range(0, count, step):
        yield slice(begin, min(begin + step, count))
