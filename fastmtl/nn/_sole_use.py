"""The check that a layer which measures the gradients of its weight is the weight's only use."""

from __future__ import annotations

from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from fastmtl.nn._compiled import probe
from fastmtl.nn._module import call

_ELSEWHERE = (
    "SharedLinear: its weight has a gradient from outside the layer as well, as a weight that is "
    "tied to another layer or has a penalty among the losses does; the norms or inner products of "
    "the tasks' gradients would lack it. Use weight.detach() there, take a penalty in a backward "
    "pass of its own, or put a TaskFork behind a torch.nn.Linear, which looks at gradients of the "
    "output"
)


class _Lent(torch.autograd.Function):
    """The weight itself, whose gradient from the borrower is noted."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, use: SoleUse) -> Tensor:
        ctx.use = use
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ctx.use.note(grad)
        return grad, None


class SoleUse:
    """Lends a weight to the one layer that may use it, and raises in a backward pass that brings it
    a gradient from elsewhere as well.

    Autograd hands on a gradient that is alone as the tensor it is, and makes a new one of a sum: so
    the gradient that arrives at the weight is compared with that of the layer without a look at its
    values. Only where the layer was used several times are sums compared. Each use has a loan of
    its own, since autograd runs old nodes last, and FSDP would find the gradient missing.
    """

    def __init__(self) -> None:
        self._weight: Tensor | None = None
        self._handle: RemovableHandle | None = None
        self._backward_id = -1
        self._received: list[Tensor] = []  # from the layer, in this backward pass
        # What arrived at the weight in a pass in which nothing had come from the layer.
        self._arrived: tuple[int, ref[Tensor]] | None = None

    def lend(self, weight: Tensor) -> Tensor:
        """The weight, for one use."""
        if not weight.requires_grad:
            return weight
        if weight is not self._weight:
            self._watch(weight)
        return call(_Lent.apply, weight, self)

    def watches(self, weight: Tensor) -> bool:
        """Whether it is this weight's gradient that is looked at."""
        return self._weight is weight

    def probe(self, weight: Tensor) -> Tensor:
        """Zeros of the weight's shape, whose gradient in a compiled graph is the layer's own."""
        if weight is not self._weight:
            self._watch(weight)
        return probe(self._note_compiled, tuple(weight.shape), weight.device, weight.dtype)

    def _note_compiled(self, grad: Tensor) -> None:
        """Take down a gradient from the layer, which most often comes after that of the weight."""
        arrived, self._arrived = self._arrived, None
        self.note(grad)
        if arrived is not None and arrived[0] == self._backward_id:
            self._received = []
            if arrived[1]() is not grad:
                raise RuntimeError(_ELSEWHERE)

    def note(self, grad: Tensor) -> None:
        """Take down a gradient from the layer."""
        backward_id = torch._C._current_graph_task_id()
        if backward_id != self._backward_id:
            self._backward_id, self._received = backward_id, []
        self._received.append(grad)

    def __getstate__(self) -> dict[str, Any]:
        # Hooks and graphs belong to the weight, and a copy has another.
        return SoleUse().__dict__

    def _watch(self, weight: Tensor) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._weight = weight
        self._handle = weight.register_hook(self._check)
        # Others go behind this hook, since they may replace the gradient.
        hooks = weight._backward_hooks
        assert hooks is not None
        for earlier in [key for key in hooks if key != self._handle.id]:
            hooks[earlier] = hooks.pop(earlier)

    def _check(self, grad: Tensor) -> None:
        received, self._received = self._received, []
        backward_id = torch._C._current_graph_task_id()
        if not received or self._backward_id != backward_id:
            self._arrived = backward_id, ref(grad)
        elif not _is_sum(grad, received):
            raise RuntimeError(_ELSEWHERE)


def _is_sum(grad: Tensor, parts: list[Tensor]) -> bool:
    """Whether autograd, which adds in the order of arrival, made `grad` of these alone."""
    if len(parts) == 1:
        return grad is parts[0]
    if grad.is_cuda and torch.cuda.is_current_stream_capturing():
        return True  # has no values yet
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return bool(((total == grad) | (total.isnan() & grad.isnan())).all())
