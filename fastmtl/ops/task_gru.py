"""One layer of GRUs, all tasks and directions at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastmtl import _checks
from fastmtl.backends.precision import accumulation_dtype
from fastmtl.backends.reference import task_gru as reference
from fastmtl.ops._autocast import in_half, need_one_dtype
from fastmtl.ops._op import FusedOp, Results, traced


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
    starts[b] + lengths[b] - 1 of `x`. The second direction goes through each sequence from its end.
    Differentiable once, in x, weights and biases.

    Halves are multiplied as halves, accumulating in float32; gates are computed and states carried
    from step to step in float32, and kept for backward in the dtype of x, which is that of the
    result. Inside autocast x is taken in its dtype, and weights that are float32 stay so: they are
    rounded for the products with x alone, and have float32 gradients.

    Args:
        x: what the tasks share, or one matrix a task; float32, float64, bfloat16 or float16. Rows
            that no sequence has are multiplied by 0 in the gradient of `weight_ih`, so they must be
            finite.
        weight_ih: W_i, in the dtype of x, as all weights and biases.
        weight_hh: W_h.
        bias_ih: b_i.
        bias_hh: b_h.
        starts: int64, on the CPU.
        lengths: int64, on the CPU, at least 1; the sequences must not overlap.
        recompute: keep nothing for backward, which computes the gates again, on the CPU for a few
            tasks at a time. Otherwise they are kept, four times as much as the states.

    Shape:
        x (R, I) where the tasks share it and (T, R, I) otherwise, weight_ih (T, dirs, 3h, I),
        weight_hh (T, dirs, 3h, h), bias_ih and bias_hh (T, dirs, 3h) with 1 or 2 directions dirs,
        starts and lengths (B,); the states (T, R, dirs * h), 0 in rows that no sequence has.

    Raises:
        TypeError, ValueError: for arguments of the wrong type, dtype, shape or device.

    Examples:
        >>> import torch
        >>> from fastmtl.ops import task_gru_layer
        >>> tasks, directions, inputs, hidden = 3, 2, 8, 4
        >>> weights = torch.randn(3, 2, 12, 8), torch.randn(3, 2, 12, 4)
        >>> biases = torch.randn(3, 2, 12), torch.randn(3, 2, 12)
        >>> starts, lengths = torch.tensor([0, 5]), torch.tensor([5, 2])
        >>> task_gru_layer(torch.randn(7, 8), *weights, *biases, starts, lengths).shape
        torch.Size([3, 7, 8])
    """
    x, weight_ih, weight_hh, bias_ih, bias_hh = in_half(
        x=x, weight_ih=weight_ih, weight_hh=weight_hh, bias_ih=bias_ih, bias_hh=bias_hh
    )
    _check(x, weight_ih, weight_hh, bias_ih, bias_hh, starts, lengths)
    if not traced(x):
        need_rows(starts, lengths, x.shape[-2])
    leaves = (x, weight_ih, weight_hh, bias_ih, bias_hh)
    keep = not recompute and torch.is_grad_enabled() and any(leaf.requires_grad for leaf in leaves)
    return _task_gru_layer(*leaves, starts.contiguous(), lengths.contiguous(), keep)


def _check(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    starts: Tensor,
    lengths: Tensor,
) -> None:
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    for name, weight in zip(names, weights, strict=True):
        _checks.need_device(name, weight, "x", x)
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
        if tensor.dtype != torch.int64:
            raise TypeError(f"{name}: expected int64, got {tensor.dtype}")
        if not tensor.is_cpu and not (tensor.is_meta and x.is_meta):
            raise ValueError(f"{name}: expected a tensor on the CPU, got one on {tensor.device}")
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
    # Compared before it is added, so that no sum overflows.
    outside = int(begins[0]) < 0 or int(begins[-1]) > rows or int(lengths.max()) > rows
    ends = begins + lengths[order]
    if outside or int(ends[-1]) > rows or bool((ends[:-1] > begins[1:]).any()):
        raise ValueError(
            f"lengths: expected sequences that lie in {rows} rows and do not overlap, "
            f"got starts {starts.tolist()} and lengths {lengths.tolist()}"
        )


def _fake(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    starts: Tensor,
    lengths: Tensor,
    keep: bool,
) -> Results:
    tasks, directions, width, hidden = weight_hh.shape
    rows, shared = x.shape[-2], x.dim() == 2
    output = x.new_empty((tasks, rows, directions * hidden))
    if not keep:
        return output, x.new_empty(0), x.new_empty(0)
    gates = (rows, tasks * directions * width) if shared else (tasks, rows, directions * width)
    return output, x.new_empty(gates), x.new_empty((tasks, directions, rows, hidden))


def _kept(results: Results, arguments: tuple[Any, ...]) -> Results:
    """Not the output of a forward pass that is done again: whoever needs it holds it."""
    output, gates, hidden_n = results
    return output if arguments[-1] else gates, gates, hidden_n


def _guard(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    starts: Tensor,
    lengths: Tensor,
    keep: bool,
) -> None:
    weights = {"weight_hh": weight_hh, "bias_ih": bias_ih, "bias_hh": bias_hh}
    need_one_dtype(weight_ih=weight_ih, **weights)
    if weight_ih.dtype != accumulation_dtype(x.dtype):
        need_one_dtype(x=x, weight_ih=weight_ih)
    _check(x, weight_ih, weight_hh, bias_ih, bias_hh, starts, lengths)
    need_rows(starts, lengths, x.shape[-2])


_task_gru_layer = FusedOp(
    reference.task_gru_layer, kept=_kept, fake=_fake, guard=_guard, transformable=False
)
