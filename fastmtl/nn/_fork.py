"""What every split into tasks does: one view for each task, and a record of their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, distributed, nn
from torch.autograd.graph import GradientEdge

from fastmtl import ops
from fastmtl._checks import need_size
from fastmtl.nn._in_graph import InGraph, Watch, Weighting, used_once
from fastmtl.nn._module import call
from fastmtl.nn._trunk import task_products
from fastmtl.nn.scope import Scope, need_scope, wanted_by
from fastmtl.ops._autograd import once_differentiable

# The input x (..., I), None at a TaskFork, and the tasks' gradients d (T, ..., O) of one use.
Use = tuple[Tensor | None, Tensor]


class _Token:
    """In a set of its kind for as long as the graph of one use, which holds it, lives."""

    def __init__(self, tokens: set[int]) -> None:
        self.tokens = tokens
        tokens.add(id(self))

    def __del__(self) -> None:
        self.tokens.discard(id(self))


class _Split(torch.autograd.Function):
    """T views of z (...); autograd forbids writing to them, which would write to all T."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, num_tasks: int) -> Tensor:
        return z.expand(num_tasks, *z.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grads: Tensor) -> tuple[Tensor, None]:
        return grads.sum(0), None


class _WatchedSplit(torch.autograd.Function):
    """The same, where the layer sees the gradients (T, ...) and chooses the combination."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, x: Tensor | None, layer: Fork) -> Tensor:
        # save_for_backward rather than an attribute: it works with checkpointing, and
        # notices when x was overwritten between the two passes.
        ctx.save_for_backward(x)
        ctx.layer = layer
        ctx.token = _Token(layer._graphs)
        return z.expand(layer.num_tasks, *z.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grads: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return ctx.layer._receive(x, grads, ctx.next_functions[0]), None, None


class Fork(InGraph):
    """What SharedLinear and TaskFork have in common: the record of the last backward pass."""

    def __init__(self, num_tasks: int) -> None:
        nn.Module.__init__(self)  # and not that of nn.Linear, which a SharedLinear is too
        self.num_tasks = need_size("num_tasks", num_tasks)
        self._probed_on = torch.get_default_device()
        self._watch: Watch | None = None
        self._scope: Scope = "layer"
        self.weighting = None
        self.process_group = None
        # Those that look at its norms, and what one combines its gradients by.
        self._watchers: WeakSet[nn.Module] = WeakSet()
        self._lent_weighting: Weighting | None = None
        self._lent_watch = False
        self._lent_scope = False
        # The uses that a backward pass could go through.
        self._graphs: set[int] = set()
        self._begin()
        self.forget()

    def __getstate__(self) -> dict[str, Any]:
        # Graphs do not lead through copies, process groups cannot be copied, and no balancer looks
        # at a copy unless it is copied too, which attaches it.
        state = {**super().__getstate__(), "_graphs": set(), "process_group": None}
        del state["_watchers"]
        if self._lent_weighting is not None and self.weighting is self._lent_weighting:
            state["weighting"] = None
        if self._lent_watch:
            state["_watch"] = None
        if self._lent_scope:
            state["_scope"] = "layer"
        return {**state, "_lent_weighting": None, "_lent_watch": False, "_lent_scope": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._watchers = WeakSet()

    def watch_for(self, balancer: nn.Module | None = None) -> None:
        """Watch norms as long as this is no copy, for a balancer that looks at them."""
        if self._watch is None:
            self.watch = "norms"
            self._lent_watch = True
        if balancer is not None:
            self._watchers.add(balancer)

    def combine_by(self, weighting: Weighting) -> None:
        """Set `weighting`, as long as this is no copy."""
        self.weighting = self._lent_weighting = weighting

    def measure_over(self, scope: Scope) -> None:
        """Set `scope`, as long as this is no copy."""
        self.scope = scope
        self._lent_scope = scope != "layer"

    @property
    def watchers(self) -> list[str]:
        """The names of the balancers that look at its norms."""
        return sorted(type(balancer).__name__ for balancer in self._watchers)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "scope" and isinstance(value, nn.Module):
            need_scope(value)  # raises, where a module would become a part of this one
        super().__setattr__(name, value)

    def forget(self) -> None:
        """Drop what was recorded of the last backward pass."""
        self._backward_id = -1
        self._uses: list[Use] = []
        self._norms: Tensor | None = None
        self._gramian: Tensor | None = None

    @property
    def watch(self) -> Watch | None:
        """What to keep of a backward pass: "norms", "gramian" (both), or None, the default.

        Set it before the forward pass. A layer that is used several times in a forward pass, or by
        several processes, keeps its inputs and the tasks' gradients (T, N, O) in memory between the
        backward pass and the call that asks for the result; a SharedLinear that is used several
        times also waits for the device once in a backward pass.

        Raises:
            ValueError: for another value.
        """
        return self._watch

    @watch.setter
    def watch(self, value: Watch | None) -> None:
        if value not in (None, "norms", "gramian"):
            raise ValueError(f'watch: expected "norms", "gramian" or None, got {value!r}')
        self._watch = value
        self._lent_watch = False
        self.forget()
        self._prepare()

    @property
    def scope(self) -> Scope:
        """Whose gradients norms and Gramian are of: "layer", the default, is what the class says,
        "trunk" all parameters that what the tasks have views of depends on, and a sequence of
        modules the parameters in these, as far as it depends on them.

        Set it before the forward pass. Beyond the layer, the backward pass sends the gradients of
        all tasks together through the layers in between: T times the work of the part of a plain
        one that is for activations, and inner products. They are exact for any layers, and take
        the least operations and memory for linear layers, convolutions and embeddings, whose
        gradients are not computed. The layer can then be used once in a backward pass.

        Raises:
            TypeError, ValueError: for another value.
        """
        return self._scope

    @scope.setter
    def scope(self, value: Scope | Sequence[nn.Module]) -> None:
        self._scope = need_scope(value)
        self._lent_scope = False
        self.forget()

    def task_grad_norms(self) -> Tensor:
        """Norms (T,) of the tasks' gradients in the last backward pass, as that pass had them:
        with the factor w_j if the loss was sum_j w_j L_j. float32, or float64 for float64.

        Raises:
            RuntimeError: if nothing was watched.
        """
        self._measure()
        if self._norms is None and self._gramian is not None:
            self._norms = self._gramian.diagonal().sqrt()
        if self._norms is None:
            raise self._nothing("norms")
        return self._norms

    def task_grad_gramian(self) -> Tensor:
        """Gramian (T, T) of the tasks' gradients in the last backward pass: the inner product of
        gradients i and j, before `weighting`. float32, or float64 for float64.

        Raises:
            RuntimeError: if nothing was watched.
        """
        self._measure()
        if self._gramian is None:
            raise self._nothing("gramian")
        return self._gramian

    def _nothing(self, what: Watch) -> RuntimeError:
        name = type(self).__name__
        if self._watch == what or self._watch == "gramian":
            return RuntimeError(f"{name}: no backward pass went through it while it was watched")
        return RuntimeError(
            f"{name}: the {what} of the tasks' gradients are not watched; "
            f'set layer.watch = "{what}" before the forward pass'
        )

    def _split(self, x: Tensor) -> Tensor:
        """T views (T, ...) of what the layer makes of x."""
        unwatched = self._watch is None and self.weighting is None
        if unwatched or not torch.is_grad_enabled():
            return call(_Split.apply, self._output(x), self.num_tasks)
        split = self._split_watched
        if torch.compiler.is_compiling():
            if self._fits_in_graph(x):
                return self._split_compiled(x)
            # As a decorator it would load all of the compiler wherever fastmtl is imported.
            reason = "the backward pass writes a record outside the graph"
            split = torch.compiler.disable(split, reason=reason)
        return call(split, x)

    def _split_watched(self, x: Tensor) -> Tensor:
        return call(_WatchedSplit.apply, *self._watched_output(x), self)

    def _output(self, x: Tensor) -> Tensor:
        """What the tasks have views of."""
        raise NotImplementedError

    def _watched_output(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The same, and what the gradients are measured with besides their own."""
        raise NotImplementedError

    def _receive(self, x: Tensor | None, grads: Tensor, below: Any) -> Tensor:
        """Record one use's gradients (T, ...) and return the combined one (...), for the edge
        `below` of the graph."""
        backward_id = torch._C._current_graph_task_id()
        if backward_id != self._backward_id:
            self.forget()
            self._backward_id = backward_id
        elif self.weighting is not None or self._scope != "layer":
            what = "weighting" if self._scope == "layer" else "scope beyond the layer"
            raise RuntimeError(used_once(self, what))
        # The dtype the matrix product of the forward pass ran in, under autocast too.
        use = (None if x is None else x.to(grads.dtype), grads)
        # Autocast may be on in a backward pass, and would round norms and weights to half.
        with torch.autocast(grads.device.type, enabled=False):
            if self._scope != "layer":
                self._measure_below(grads, GradientEdge(*below))
            elif self.weighting is not None:
                self._gramian = self._gramian_of([use])
            if self.weighting is None:
                if self._scope != "layer":
                    return grads.sum(0)
                self._uses.append(use)
                # The only use is measured while its gradients are in the cache, and they are freed.
                # Ranks pass through here in any order, and would wait for each other.
                if len(self._graphs) == 1 and self.process_group is None:
                    self._measure()
                return grads.sum(0)
            assert self._gramian is not None
            weights = self._weights_of(self._gramian)
            return call(torch.tensordot, weights.to(grads.dtype), grads, 1)

    def _measure_below(self, grads: Tensor, edge: GradientEdge) -> None:
        """Measure while the graph below is there, in the order in which all ranks come by."""
        norms = self.weighting is None and self._watch == "norms"
        wanted = wanted_by(self._scope)
        products = task_products(edge, grads, wanted, norms=norms, group=self.process_group)
        if norms:
            self._norms = products.clamp(min=0).sqrt()
        else:
            self._gramian = products

    def _measure(self) -> None:
        if not self._uses:
            return
        if self._watch == "norms":
            self._norms = self._norms_of(self._uses)
        else:
            self._gramian = self._gramian_of(self._uses)
        self._uses = []

    def _norms_of(self, uses: list[Use]) -> Tensor:
        """Norms (T,) over all uses, and over the ranks of the process group."""
        inputs, grads = self._joined(uses)
        if self.process_group is None:
            return ops.task_grad_norms(inputs, grads)
        norms = ops.task_grad_norms(*self._share(inputs, grads, self.process_group))
        return self._mean_square(norms.square(), self.process_group).sqrt()

    def _gramian_of(self, uses: list[Use]) -> Tensor:
        """Gramian (T, T), likewise."""
        inputs, grads = self._joined(uses)
        if self.process_group is None:
            return ops.task_grad_gramian(inputs, grads)
        gramian = ops.task_grad_gramian(*self._share(inputs, grads, self.process_group))
        return self._mean_square(gramian, self.process_group)

    def _mean_square(self, products: Tensor, group: distributed.ProcessGroup) -> Tensor:
        """Inner products of the mean gradients, from this rank's part of those of the sums."""
        distributed.all_reduce(products, group=group)
        return products / distributed.get_world_size(group) ** 2

    def _joined(self, uses: list[Use]) -> tuple[Tensor, Tensor]:
        """Inputs (N, I) and gradients (T, N, O) of a linear map, the gradients of whose weight are
        those that the layer measures."""
        raise NotImplementedError

    def _share(
        self, inputs: Tensor, grads: Tensor, group: distributed.ProcessGroup
    ) -> tuple[Tensor, Tensor]:
        """The same such that the Gramians of all ranks add up to that of the summed gradients."""
        raise NotImplementedError
