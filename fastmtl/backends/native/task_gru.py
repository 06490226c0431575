"""A layer of GRUs: matrix products over all time steps around the native recurrence."""

from __future__ import annotations

from types import ModuleType

from torch import Tensor

from fastmtl.backends.native import memory, task_gru_cpu, task_gru_cuda
from fastmtl.backends.precision import accumulation_dtype, full_precision
from fastmtl.backends.task_gru import Gradients, gradients_from_inputs, in_dtypes_of


def task_gru_layer_forward(
    x: Tensor,  # (R, I) or (T, R, I)
    weight_ih: Tensor,  # (T, dirs, 3h, I)
    weight_hh: Tensor,  # (T, dirs, 3h, h)
    bias_ih: Tensor,  # (T, dirs, 3h)
    bias_hh: Tensor,  # (T, dirs, 3h)
    starts: Tensor,  # (B,)
    lengths: Tensor,  # (B,)
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    # The kernels read what the matrix products return, so autocast must not narrow it.
    with full_precision(x.device):
        others = (_as_carried(x, tensor) for tensor in (weight_hh, bias_ih, bias_hh))
        arguments = (x, weight_ih.to(x.dtype), *others, starts, lengths, keep)
        states, gates, hidden_n = _kernels(x).forward(*arguments)
    return states, gates, hidden_n


def task_gru_layer_backward(
    grad: Tensor,  # (T, R, dirs * h)
    output: Tensor,  # (T, R, dirs * h)
    gates: Tensor,  # (R, T * dirs * 3h) or (T, R, dirs * 3h)
    hidden_n: Tensor,  # (T, dirs, R, h)
    x: Tensor,  # (R, I) or (T, R, I)
    weight_ih: Tensor,  # (T, dirs, 3h, I)
    weight_hh: Tensor,  # (T, dirs, 3h, h)
    bias_ih: Tensor,  # (T, dirs, 3h)
    bias_hh: Tensor,  # (T, dirs, 3h)
    starts: Tensor,  # (B,)
    lengths: Tensor,  # (B,)
    keep: bool,
    needs: list[bool],
) -> Gradients:
    if not keep:
        weights, rows = (weight_ih, weight_hh, bias_ih, bias_hh), (starts, lengths)
        return gradients_from_inputs(
            task_gru_layer_forward, task_gru_layer_backward, grad, x, weights, rows, needs
        )
    with full_precision(x.device):
        kept = (output, gates, hidden_n)
        # A large weight is not rounded where nobody wants the gradient of what it multiplies.
        read = weight_ih.to(x.dtype) if needs[0] else weight_ih, _as_carried(x, weight_hh)
        grads = _kernels(x).backward(grad, *kept, x, *read, starts, lengths, needs)
        return in_dtypes_of((x, weight_ih, weight_hh, bias_ih, bias_hh), grads)


def _as_carried(x: Tensor, tensor: Tensor) -> Tensor:
    """What is combined with states, in the dtype in which they are carried."""
    return tensor.to(accumulation_dtype(x.dtype))


def _kernels(x: Tensor) -> ModuleType:
    return task_gru_cuda if memory.module(x).device == "cuda" else task_gru_cpu
