"""What the autograd functions of fused ops share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor


class _NoSecondDerivative(torch.autograd.Function):
    """Its first argument, with an error where somebody differentiates it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *sources: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError("fastmtl: this op is differentiable once; its second derivative is not")


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Make a second derivative through `backward` an error.

    PyTorch's decorator of that name only notices a second derivative that comes through the
    incoming gradient; one with respect to saved tensors would silently be zero.
    """

    @wraps(backward)
    def wrapper(ctx: Any, *grads: Tensor | None) -> Any:
        if not torch.is_grad_enabled():
            return backward(ctx, *grads)
        with torch.no_grad():
            results = backward(ctx, *grads)
        sources = [
            source
            for source in (*ctx.saved_tensors, *grads)
            if source is not None and source.requires_grad
        ]
        results = results if isinstance(results, tuple) else (results,)
        return tuple(
            _NoSecondDerivative.apply(result, *sources)
            if sources and result is not None
            else result
            for result in results
        )

    return wrapper
