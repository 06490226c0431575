"""Inner products of the tasks' gradients of many parameters, from those at the point of the split.

The gradients d_j of T tasks are sent through the layers below, once, and the products are taken
layer by layer: of a weight that one layer uses once, from the layer's input and d_j (see
`fastmtl.ops.task_grad_gramian`), of all other parameters from their gradients.

Sent together, the tasks share each call, and the gradients on their way take T times the memory of
the largest output. One by one, as in a backward pass for each task, they stay in the cache, and
what products are taken of is kept. So they go together where outputs are small, or where more would
be kept than is on its way; see `_group_size`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd.graph import GradientEdge, Node
from torch.utils.checkpoint import CheckpointError
from torch.utils.hooks import RemovableHandle

from fastmtl import ops
from fastmtl.backends.precision import accumulation_dtype, full_precision
from fastmtl.backends.task_grads import gram_is_cheaper
from fastmtl.nn import _ranks
from fastmtl.nn._module import call
from fastmtl.nn._uses import LayerUse, Uses, find_uses

# Takes gradients (t, M, O) of the output of a layer, or with None rows of gradients (t, P).
Receive = Callable[[LayerUse | None, Tensor], None]

# Of gradients on their way there are about five at once: out of a layer and into it, beside it, and
# what the products take.
_ALIVE = 5
# Elements of a task's largest output from which a CPU takes the tasks one by one: with fewer the
# time goes to the calls, and with more, of several tasks, to the memory.
_ALONE = 1 << 16
# Elements of a group's largest output.
_GROUP = 1 << 24
# Columns of gradients that are multiplied at once.
_BLOCK = 1 << 20


def task_products(
    root: GradientEdge,
    grads: Tensor,  # (T, ...)
    wanted: Callable[[nn.Parameter], bool],
    *,
    norms: bool,
    group: distributed.ProcessGroup | None,
) -> Tensor:
    """The Gramian (T, T), or squared norms (T,), of the gradients of the wanted parameters below
    `root`; of the gradients' mean over the ranks of a process group."""
    tasks = len(grads)
    products = 0 if norms else tasks

    def by_inputs(rows: int, features: int, outputs: int) -> bool:
        # Nearer to equality, laying out patches and gradients as rows takes what products save.
        few = 2 * rows <= features
        return few and gram_is_cheaper(1, tasks, rows, features, outputs, products)

    try:
        uses = find_uses(root.node, wanted, by_inputs)
        return _products(root, grads, uses, _Total(grads, norms, group))
    except CheckpointError:
        # What a checkpoint computes again can be read once: by the layers' own gradients alone.
        uses = find_uses(root.node, wanted, None)
        return _products(root, grads, uses, _Total(grads, norms, group))


def _products(root: GradientEdge, grads: Tensor, uses: Uses, total: _Total) -> Tensor:
    tasks = len(grads)
    if not uses.layers and not uses.others:
        raise RuntimeError(
            "scope: expected layers below the shared one, with parameters that are trained, got "
            "none that its input depends on"
        )
    size = _group_size(uses, tasks, grads.is_cuda)
    if size == tasks:
        _send(root, grads, uses, total.add)
        return total.mean()
    kept = _Kept(tasks)
    for begin in range(0, tasks, size):
        part = slice(begin, begin + size)
        _send(root, grads[part], uses, kept.of(part))
    kept.hand_to(total)
    return total.mean()


def _group_size(uses: Uses, tasks: int, cuda: bool) -> int:
    """How many tasks are sent together."""
    largest = max(uses.largest, 1)
    kept = sum(min(use.rows, use.features) * use.outputs for use in uses.layers)
    kept += sum(parameter.numel() for parameter in uses.others)
    if not uses.together:
        return 1
    if 2 * kept > _ALIVE * largest:
        return tasks
    if largest > _ALONE and not cuda:
        return 1
    return min(tasks, max(1, _GROUP // largest))


class _Kept:
    """What products are taken of, where the tasks go in groups: of each layer the smaller of d
    (T, M, O) and d^T x (T, O, I)."""

    def __init__(self, tasks: int) -> None:
        self._tasks = tasks
        self._layers: dict[LayerUse | None, Tensor] = {}

    def of(self, part: slice) -> Receive:
        """Takes what arrives of a group of the tasks."""

        def receive(use: LayerUse | None, grads: Tensor) -> None:
            if use is None or use.rows <= use.features:
                self._place(use, grads, grads.shape[1:])[part] = grads
                return
            kept = self._place(use, grads, (use.outputs, use.features))[part]
            inputs = use.inputs().to(grads.dtype).expand(len(kept), -1, -1)
            torch.bmm(grads.mT, inputs, out=kept)

        return receive

    def _place(self, use: LayerUse | None, like: Tensor, shape: tuple[int, ...]) -> Tensor:
        """(T, *shape), for all tasks."""
        if use not in self._layers:
            self._layers[use] = like.new_zeros(self._tasks, *shape)
        return self._layers[use]

    def hand_to(self, total: _Total) -> None:
        """Add the products of all layers to a total, which frees them."""
        for use in list(self._layers):
            grads = self._layers.pop(use)
            if use is None or use.rows <= use.features:
                total.add(use, grads)
            else:
                total.add_rows(grads.flatten(1))


class _Total:
    """Adds up the inner products over the layers."""

    def __init__(self, like: Tensor, norms: bool, group: distributed.ProcessGroup | None) -> None:
        dtype = accumulation_dtype(like.dtype)
        shape = (len(like),) if norms else (len(like), len(like))
        self._total = like.new_zeros(shape, dtype=dtype)
        self._norms, self._group = norms, group

    def add(self, use: LayerUse | None, grads: Tensor) -> None:
        """A layer's, of the gradients (T, M, O) of its output; without one, rows of gradients."""
        if use is None or use.rows == 1:
            self.add_rows(grads if use is None else self._scaled_rows(use, grads))
            return
        inputs, grads = use.inputs().to(grads.dtype), grads.contiguous()
        if self._group is not None:
            inputs, grads = _ranks.share_columns(inputs, grads, self._group)
        if self._norms:
            self._total += ops.task_grad_norms(inputs, grads).square()
        else:
            self._total += ops.task_grad_gramian(inputs, grads)

    def add_rows(self, rows: Tensor) -> None:
        """Those of gradients (T, P) as they are."""
        rows = rows.to(self._total.dtype)
        if self._group is not None:
            one = rows.new_ones(1, 1)
            rows = _ranks.share_columns(one, rows.unsqueeze(1), self._group)[1].flatten(1)
        if self._norms:
            self._total += ops.stacked_norms(rows).square()
            return
        with full_precision(rows.device):
            for block in rows.split(max(1, _BLOCK // len(rows)), 1):
                self._total.addmm_(block, block.T)

    def _scaled_rows(self, use: LayerUse, grads: Tensor) -> Tensor:
        """d^T x of a single row, but for the length of x."""
        length = torch.linalg.vector_norm(use.inputs().to(grads.dtype))
        return torch.mul(grads.flatten(1), length)

    def mean(self) -> Tensor:
        """The products of the mean over the ranks, symmetric to the bit."""
        total = self._total
        if self._group is not None:
            distributed.all_reduce(total, group=self._group)
            total = total / distributed.get_world_size(self._group) ** 2
        return total if self._norms else (total + total.T) / 2


class _Stacked(torch.autograd.Function):
    """Shows the gradients of all tasks where torch.vmap shows one, or the one that all have."""

    @staticmethod
    def forward(grad: Tensor, see: Callable[[Tensor], None]) -> Tensor:
        see(grad.unsqueeze(0))
        return grad.new_empty(0)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: Any, grad: Tensor, see: Callable[[Tensor], None]) -> Any:
        see(grad.movedim(in_dims[0], 0))
        return grad.new_empty(0), None


def _send(
    root: GradientEdge,
    grads: Tensor,  # (t, ...)
    uses: Uses,
    receive: Receive,
) -> None:
    """Send gradients of t tasks down, and hand on what arrives: those of a layer's output (t, M, O)
    or, with None, those of parameters, (t, P)."""
    captured = [use for use in uses.layers if use.node in uses.last]
    targets: list[Any] = [*(GradientEdge(use.node, 0) for use in captured), *uses.others]
    arrived: list[bool] = []

    def pull(grad: Tensor) -> tuple[Tensor, ...]:
        found = torch.autograd.grad([root], targets, [grad], retain_graph=True, allow_unused=True)
        arrived[:] = [each is not None for each in found]
        return tuple(each for each in found if each is not None)

    alone = len(grads) == 1
    handles = [_watch(use, receive, alone) for use in uses.layers if use.node not in uses.last]
    try:
        if alone:
            found = iter([each.unsqueeze(0) for each in pull(grads[0])])
        else:
            found = iter(_together(pull, grads))
    finally:
        for handle in handles:
            handle.remove()
    there = [next(found) if arrives else None for arrives in arrived]
    for use, each in zip(captured, there, strict=False):
        if each is not None:
            receive(use, use.grads(each))
    rows = [each.flatten(1) for each in there[len(captured) :] if each is not None]
    if rows:
        receive(None, torch.cat(rows, 1))


def _together(pull: Callable[[Tensor], tuple[Tensor, ...]], grads: Tensor) -> tuple[Tensor, ...]:
    with warnings.catch_warnings():
        # Some layers take one task at a time, as they would without this.
        warnings.filterwarnings("ignore", message="There is a performance drop")
        found: tuple[Tensor, ...] = torch.func.vmap(pull, randomness="same")(grads)
    return found


def _watch(use: LayerUse, receive: Receive, alone: bool) -> RemovableHandle:
    """Hand on the gradients of a layer's output when they come by, of all tasks or of one."""

    def see(stacked: Tensor) -> None:
        receive(use, use.grads(stacked))

    def look(grads: tuple[Tensor | None, ...]) -> None:
        (grad,) = grads
        if grad is None:
            return
        if alone:
            see(grad.unsqueeze(0))
        else:
            call(_Stacked.apply, grad, see)

    node: Node = use.node
    return node.register_prehook(look)
