"""One layer of GRUs, all tasks and directions at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastmtl import backends
from fastmtl.backends import reference
from fastmtl.backends.parts import task_parts
from fastmtl.ops import _checks
from fastmtl.ops._autograd import once_differentiable

_Grads = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def task_gru_layer(
    x: Tensor,  # (R, I) or (T, R, I)
    weight_ih: Tensor,  # (T, dirs, 3h, I)
    weight_hh: Tensor,  # (T, dirs, 3h, h)
    bias_ih: Tensor,  # (T, dirs, 3h)
    bias_hh: Tensor,  # (T, dirs, 3h)
    starts: Tensor,  # (B,)
    lengths: Tensor,  # (B,)
    *,
    recompute: bool = False,
) -> Tensor:
    """The states of a GRU layer for every task, in one or two directions.

    The equations are those of `torch.nn.GRU`, with its gates in the order r, z, n:

        r, z = sigmoid(W_i x + b_i + W_h h + b_h),  n = tanh(W_in x + b_in + r (W_hn h + b_hn)),
        h' = (1 - z) n + z h,  with h = 0 at the start of a sequence

    The sequences are rows of one matrix: the time steps of sequence b are the rows starts[b] to
    starts[b] + lengths[b] - 1 of `x`, which is (R, I) where the tasks share it and (T, R, I)
    otherwise. `starts` and `lengths` (B,) are int64 tensors on the CPU; the sequences must not
    overlap. dirs is 1 or 2; the second direction goes through each sequence from its end. Returns
    (T, R, dirs * h), 0 in rows that no sequence has; these are multiplied by 0 in the gradient of
    `weight_ih`, so they must be finite. float32, float64, bfloat16 and float16, the halves computed
    in float32. Differentiable once, in x, weights and biases.

    Backward reads the gates, four times as much as the states, which forward keeps for it. With
    `recompute` nothing is kept: backward computes them again, on the CPU for a few tasks at a time.

    Raises TypeError or ValueError for arguments of the wrong type, dtype, shape or device.

    Example:
        >>> import torch
        >>> from fastmtl.ops.task_gru import task_gru_layer
        >>> tasks, directions, inputs, hidden = 3, 2, 8, 4
        >>> weights = torch.randn(3, 2, 12, 8), torch.randn(3, 2, 12, 4)
        >>> biases = torch.randn(3, 2, 12), torch.randn(3, 2, 12)
        >>> starts, lengths = torch.tensor([0, 5]), torch.tensor([5, 2])
        >>> task_gru_layer(torch.randn(7, 8), *weights, *biases, starts, lengths).shape
        torch.Size([3, 7, 8])
    """
    _check(x, weight_ih, weight_hh, bias_ih, bias_hh, starts, lengths)
    tensors = _checks.promote_under_autocast(x, weight_ih, weight_hh, bias_ih, bias_hh)
    dtype, computed = tensors[0].dtype, reference.accumulation_dtype(tensors[0].dtype)
    for name, weight in zip(_WEIGHTS, tensors[1:], strict=True):
        _checks.need_dtype(name, weight, "x", tensors[0])
    if dtype != computed:
        tensors = tuple(tensor.to(computed) for tensor in tensors)
    tensors += starts.contiguous(), lengths.contiguous()
    return _layer(*tensors, recompute=recompute).to(dtype)


_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _layer(*arguments: Tensor, recompute: bool) -> Tensor:
    x, starts, lengths = arguments[0], *arguments[-2:]
    differentiated = torch.is_grad_enabled() and any(t.requires_grad for t in arguments)
    keep = differentiated and not recompute
    if _checks.traced(x):
        output: Tensor = _task_gru_layer(*arguments, keep)[0]
        return output
    need_rows(starts, lengths, x.shape[-2])
    kernels = backends.kernels("task_gru_layer", x.device)
    if kernels is reference:
        return reference.task_gru_layer(*arguments)
    if not differentiated:
        return _forward(kernels, x, *arguments[1:], False)[0]
    result: Tensor = _TaskGRULayer.apply(*arguments, keep, kernels)
    return result


def _check(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    starts: Tensor,
    lengths: Tensor,
) -> None:
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    for name, tensor in zip(("x", *_WEIGHTS), (x, *weights), strict=True):
        _checks.need_floating(name, tensor)
        _checks.need_device(name, tensor, "x", x)
    if weight_hh.dim() != 4 or weight_hh.shape[2] != 3 * weight_hh.shape[3]:
        raise ValueError(
            f"weight_hh: expected shape (T, dirs, 3h, h), got {tuple(weight_hh.shape)}"
        )
    tasks, directions, width, _ = weight_hh.shape
    if directions not in (1, 2):
        raise ValueError(f"weight_hh: expected 1 or 2 directions, got {directions}")
    if x.dim() not in (2, 3) or (x.dim() == 3 and x.shape[0] != tasks):
        raise ValueError(
            f"x: expected shape (R, I) or (T, R, I) with T = {tasks}, got {tuple(x.shape)}"
        )
    shape = (tasks, directions, width)
    _checks.need_shape("weight_ih", weight_ih, (*shape, x.shape[-1]), "(T, dirs, 3h, I)")
    _checks.need_shape("bias_ih", bias_ih, shape, "(T, dirs, 3h)")
    _checks.need_shape("bias_hh", bias_hh, shape, "(T, dirs, 3h)")
    for name, tensor in (("starts", starts), ("lengths", lengths)):
        _checks.need_tensor(name, tensor)
        if tensor.dtype != torch.int64 or tensor.device.type not in ("cpu", "meta"):
            raise TypeError(
                f"{name}: expected int64 on the CPU, got {tensor.dtype} on {tensor.device}"
            )
        if tensor.dim() != 1:
            raise ValueError(f"{name}: expected shape (B,), got {tuple(tensor.shape)}")
    _checks.need_shape("starts", starts, tuple(lengths.shape), "(B,)")


def need_rows(starts: Tensor, lengths: Tensor, rows: int) -> None:
    """Raise unless every sequence has a step, and all are rows of their own from 0 to `rows`."""
    if not len(lengths):
        return
    if int(lengths.min()) < 1:
        raise ValueError(f"lengths: expected lengths of at least 1, got {int(lengths.min())}")
    begins, order = starts.sort()
    ends = begins + lengths[order]
    if int(begins[0]) < 0 or int(ends[-1]) > rows or bool((ends[:-1] > begins[1:]).any()):
        raise ValueError(
            f"lengths: expected sequences that lie in {rows} rows and do not overlap, "
            f"got starts {starts.tolist()} and lengths {lengths.tolist()}"
        )


def _forward(kernels: Any, x: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    # The kernels read what the matrix products in there return, so autocast must not narrow it.
    with reference.full_precision(x.device):
        result: tuple[Tensor, Tensor, Tensor] = kernels.task_gru_layer_forward(x, *arguments)
        return result


def _backward(kernels: Any, grad: Tensor, saved: Sequence[Tensor], needs: list[bool]) -> _Grads:
    """The gradients from output, gates, hidden_n, and then the arguments of the forward pass; the
    first three are empty where it kept nothing."""
    output, gates, hidden_n, x, weight_ih, weight_hh, bias_ih, bias_hh, *rows = saved
    with reference.full_precision(grad.device):
        if not gates.numel():
            weights = (weight_ih, weight_hh, bias_ih, bias_hh)
            return _backward_from_inputs(kernels, grad, x, weights, rows, needs)
        result: _Grads = kernels.task_gru_layer_backward(
            grad, output, gates, hidden_n, x, weight_ih, weight_hh, *rows, needs
        )
        return result


def _backward_from_inputs(
    kernels: Any,
    grad: Tensor,
    x: Tensor,
    weights: Sequence[Tensor],
    rows: Sequence[Tensor],
    needs: list[bool],
) -> _Grads:
    """The gradients from the arguments of the forward pass, some tasks at a time."""

    def gradients(grad: Tensor, x: Tensor, *weights: Tensor) -> _Grads:
        kept = kernels.task_gru_layer_forward(x, *weights, *rows, True)
        result: _Grads = kernels.task_gru_layer_backward(grad, *kept, x, *weights[:2], *rows, needs)
        return result

    parts, shared = task_parts(x, weights[1]), x.dim() == 2
    if len(parts) == 1:
        return gradients(grad, x, *weights)
    wanted = zip((x, *weights), (*needs, True, True), strict=True)
    totals = [torch.zeros_like(t) if need else t.new_empty(0) for t, need in wanted]
    for part in parts:
        found = gradients(grad[part], x if shared else x[part], *(w[part] for w in weights))
        for index, (total, value) in enumerate(zip(totals, found, strict=True)):
            if shared and index == 0:
                total += value
            else:
                total[part] = value
        del found, value
    grad_x, grad_ih, grad_hh, grad_bias_ih, grad_bias_hh = totals
    return grad_x, grad_ih, grad_hh, grad_bias_ih, grad_bias_hh


class _TaskGRULayer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias_ih: Tensor,
        bias_hh: Tensor,
        starts: Tensor,
        lengths: Tensor,
        keep: bool,
        kernels: Any,
    ) -> Tensor:
        inputs = (x, weight_ih, weight_hh, bias_ih, bias_hh, starts, lengths)
        output, *kept = _forward(kernels, *inputs, keep)
        ctx.save_for_backward(output if keep else kept[0], *kept, *inputs)
        ctx.kernels = kernels
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        grads = _backward(ctx.kernels, grad, ctx.saved_tensors, _needs(ctx))
        return *_wanted(ctx, grads), None, None, None, None


def _needs(ctx: Any) -> list[bool]:
    return list(ctx.needs_input_grad[:3])


def _wanted(ctx: Any, grads: _Grads) -> tuple[Tensor | None, ...]:
    needs = ctx.needs_input_grad[:5]
    return tuple(grad if need else None for grad, need in zip(grads, needs, strict=True))


@torch.library.custom_op("fastmtl::task_gru_layer", mutates_args=())
def _task_gru_layer(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    starts: Tensor,
    lengths: Tensor,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    need_rows(starts, lengths, x.shape[-2])
    kernels = backends.kernels("task_gru_layer", x.device)
    return _forward(kernels, x, weight_ih, weight_hh, bias_ih, bias_hh, starts, lengths, keep)


@torch.library.custom_op("fastmtl::task_gru_layer_backward", mutates_args=())
def _task_gru_layer_backward(
    grad: Tensor,
    output: Tensor,
    gates: Tensor,
    hidden_n: Tensor,
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    starts: Tensor,
    lengths: Tensor,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    kernels = backends.kernels("task_gru_layer", x.device)
    saved = (output, gates, hidden_n, x, weight_ih, weight_hh, bias_ih, bias_hh, starts, lengths)
    return _backward(kernels, grad, saved, needs)


@_task_gru_layer.register_fake
def _(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    starts: Tensor,
    lengths: Tensor,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    tasks, directions, width, hidden = weight_hh.shape
    rows = x.shape[-2]
    output = x.new_empty((tasks, rows, directions * hidden))
    if not keep:
        return output, x.new_empty(0), x.new_empty(0)
    shared = x.dim() == 2
    shape = (rows, tasks * directions * width) if shared else (tasks, rows, directions * width)
    return output, x.new_empty(shape), x.new_empty((tasks, directions, rows, hidden))


@_task_gru_layer_backward.register_fake
def _(
    grad: Tensor,
    output: Tensor,
    gates: Tensor,
    hidden_n: Tensor,
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    starts: Tensor,
    lengths: Tensor,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    tensors = zip((x, weight_ih, weight_hh), needs, strict=True)
    grad_x, grad_ih, grad_hh = (x.new_empty(t.shape if need else 0) for t, need in tensors)
    biases = weight_hh.shape[:3]
    return grad_x, grad_ih, grad_hh, x.new_empty(biases), x.new_empty(biases)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, keep = inputs
    states, *kept = output
    ctx.save_for_backward(states if keep else kept[0], *kept, *tensors)
    ctx.mark_non_differentiable(*kept)


def _differentiate(ctx: Any, grad: Tensor, *_: Tensor) -> Any:
    grads = _task_gru_layer_backward(grad, *ctx.saved_tensors, _needs(ctx))
    return *_wanted(ctx, grads), None, None, None


_task_gru_layer.register_autograd(_differentiate, setup_context=_setup)
