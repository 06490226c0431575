"""What a split does in a compiled graph, whose backward pass can write nothing but gradients.

So the graph is given inputs that are zero and change nothing, *probes*, and hands out as their
gradients what is measured: norms or Gramian, and the layer's own part of its weight's gradient. A
node behind each probe receives it in the backward pass. A weighting is called by an op of its own,
which the compiler takes as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any
from weakref import WeakMethod, WeakValueDictionary

import torch
from torch import Tensor

from fastmtl.nn._module import call

Take = Callable[[Tensor], None]
Weigh = Callable[[Tensor], Tensor]


class _Receiver(torch.autograd.Function):
    """Zeros whose gradient goes to `take` and no further."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, shape: tuple[int, ...], take: WeakMethod[Take]) -> Tensor:
        ctx.take = take
        return source.new_zeros(()).expand(shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None]:
        take = ctx.take()
        if take is not None:
            take(grad)
        return None, None, None


def probe(take: Take, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Zeros of a shape whose gradient in a backward pass is given to `take`, a method."""
    with torch.enable_grad():
        source = torch.zeros((), device=device, dtype=dtype, requires_grad=True)
        return call(_Receiver.apply, source, shape, WeakMethod(take))


class Shown(torch.autograd.Function):
    """The weight itself, whose gradient from here is the probe's too."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, probe: Tensor) -> Tensor:
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return grad, grad


class ProbedSplit(torch.autograd.Function):
    """T views of z, whose gradients' norms (T,) or Gramian (T T,), and 1, are the probe's gradient:
    the last element counts the uses of a layer, whose measures do not add up."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, x: Tensor, probe: Tensor, tasks: int, rows: bool, gramian: bool
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.rows, ctx.gramian = rows, gramian
        return z.expand(tasks, *z.shape)

    @staticmethod
    def backward(ctx: Any, grads: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        measured = _measured(x, grads, ctx.rows, ctx.gramian).flatten()
        one = measured.new_ones(1)
        return grads.sum(0), None, torch.cat([measured, one]), None, None, None


class WeighedSplit(torch.autograd.Function):
    """T views of z, whose gradients are combined by the weighting of the layer of a key."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, x: Tensor, key: Tensor, tasks: int, rows: bool) -> Tensor:
        ctx.save_for_backward(x, key)
        ctx.rows = rows
        return z.expand(tasks, *z.shape)

    @staticmethod
    def backward(ctx: Any, grads: Tensor) -> tuple[Tensor | None, ...]:
        x, key = ctx.saved_tensors
        gramian = _measured(x, grads, ctx.rows, True)
        weights = torch.ops.fastmtl.weigh(gramian, key)
        with torch.autocast(grads.device.type, enabled=False):
            combined = torch.tensordot(weights.to(grads.dtype), grads, 1)
        return combined, None, None, None, None


def _measured(x: Tensor, grads: Tensor, rows: bool, gramian: bool) -> Tensor:
    """Norms or Gramian of d^T x, straight from the registered op: a backward pass that is traced
    may not ask what the public one checks."""
    tasks = grads.shape[0]
    if rows:
        inputs, d = x.reshape(-1, x.shape[-1]), grads.reshape(tasks, -1, grads.shape[-1])
    else:
        inputs, d = x, grads.reshape(tasks, 1, -1)
    op = torch.ops.fastmtl.task_grad_gramian if gramian else torch.ops.fastmtl.task_grad_norms
    measured: Tensor = op(inputs.to(grads.dtype), d)
    return measured


_KEYS = count()
_WEIGHING: WeakValueDictionary[int, Any] = WeakValueDictionary()


def key_of(layer: Any) -> Tensor:
    """A number by which graphs find the layer and its `weigh` as long as it lives; in a tensor,
    since a graph holds for another layer too."""
    key = next(_KEYS)
    _WEIGHING[key] = layer
    return torch.tensor(key, device="cpu")


def _weigh(gramian: Tensor, key: Tensor) -> Tensor:
    layer = _WEIGHING.get(int(key))
    if layer is None:
        raise RuntimeError("weighting: its layer is gone, and was compiled into this graph")
    weights: Tensor = layer.weigh(gramian)
    return weights


# It keeps a record and calls what may not be captured.
_op = torch.library.custom_op(
    "fastmtl::weigh",
    _weigh,
    mutates_args=(),
    schema="(Tensor gramian, Tensor key) -> Tensor",
    tags=(torch.Tag.cudagraph_unsafe,) if hasattr(torch.Tag, "cudagraph_unsafe") else (),
)
_op.register_fake(lambda gramian, key: gramian.new_empty(gramian.shape[0]))
