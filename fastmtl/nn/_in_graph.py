"""The part of a split into tasks that torch.compile puts into one graph; see `_compiled`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, distributed
from typing_extensions import Self

from fastmtl._checks import need_shape
from fastmtl.nn import _compiled, _ranks
from fastmtl.nn._module import Layer, call
from fastmtl.nn.scope import Scope

Watch = Literal["norms", "gramian"]
Weighting = Callable[[Tensor], Tensor]

_USED_TWICE = (
    "a watched SharedLinear or TaskFork was used several times in one backward pass, compiled, "
    "where its norms do not add up; compile around it, or use it once"
)


def used_once(layer: Layer, what: str) -> str:
    """What is told of a layer that is used twice where it needs all gradients at once."""
    return (
        f"{type(layer).__name__}: with a {what} it can be used once in a backward pass, because it "
        "needs the gradients of all its uses"
    )


class InGraph(Layer):
    """Norms, Gramian and combined gradients of a backward pass that is compiled."""

    num_tasks: int
    # From the (T, T) Gramian of a backward pass to the (T,) weights with which it combines the
    # tasks' gradients; None adds them up. To be set before the forward pass.
    weighting: Weighting | None
    # The ranks whose gradients DistributedDataParallel averages: norms and Gramian are then those
    # of the average. None for the gradients of this process alone.
    process_group: distributed.ProcessGroup | None
    _watch: Watch | None
    _scope: Scope
    _backward_id: int
    _norms: Tensor | None
    _gramian: Tensor | None
    # Where what is measured is handed out.
    _probed_on: torch.device

    def _begin(self) -> None:
        """Take a key of its own, and make the probes."""
        self._key = _compiled.key_of(self)
        self._prepare()

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_probes": None}
        del state["_key"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._begin()

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._probed_on = fn(torch.zeros((), device=self._probed_on)).device
        self._prepare()
        return self

    def _prepare(self) -> None:
        """Make what a compiled graph hands out gradients by, where some are watched."""
        self._probes: tuple[Tensor, Tensor] | None = None
        if self._watch is not None:
            size = self.num_tasks ** (2 if self._watch == "gramian" else 1)
            single, double = (
                _compiled.probe(self._take, (size + 1,), self._probed_on, dtype)
                for dtype in (torch.float32, torch.float64)
            )
            self._probes = single, double

    def _fits_in_graph(self, x: Tensor) -> bool:
        """Whether the backward pass needs nothing that a compiled graph does not have."""
        alone = self.process_group is None and not _ranks.several()
        there = self.weighting is not None or (
            self._probes is not None and self._probes[0].device == x.device
        )
        return self._scope == "layer" and alone and there

    def _split_compiled(self, x: Tensor) -> Tensor:
        z, inputs, rows = self._compiled_output(x)
        if self.weighting is not None:
            return call(_compiled.WeighedSplit.apply, z, inputs, self._key, self.num_tasks, rows)
        assert self._probes is not None
        probe, gramian = self._probes[z.dtype == torch.float64], self._watch == "gramian"
        return call(_compiled.ProbedSplit.apply, z, inputs, probe, self.num_tasks, rows, gramian)

    def _take(self, measured: Tensor) -> None:
        """Record what a compiled graph measured: norms or Gramian, and how many uses it is of."""
        torch._assert_async(measured[-1] == 1, _USED_TWICE)
        self._begin_pass(_USED_TWICE)
        found = measured[:-1].clone()
        if self._watch == "gramian":
            self._gramian = found.view(self.num_tasks, self.num_tasks)
        else:
            self._norms = found

    def weigh(self, gramian: Tensor) -> Tensor:
        """Weights (T,) of the tasks' gradients from what a compiled graph measured, (T, T)."""
        self._begin_pass(used_once(self, "weighting"))
        self._gramian = gramian.clone()
        with torch.no_grad(), torch.autocast(gramian.device.type, enabled=False):
            return self._weights_of(self._gramian).to(gramian.dtype, copy=True)

    def _begin_pass(self, twice: str) -> None:
        """Drop what other passes left; RuntimeError if this one was here before."""
        backward_id = torch._C._current_graph_task_id()
        if backward_id == self._backward_id:
            raise RuntimeError(twice)
        self.forget()
        self._backward_id = backward_id

    def _weights_of(self, gramian: Tensor) -> Tensor:
        assert self.weighting is not None
        weights = self.weighting(gramian)
        need_shape("weighting", weights, (self.num_tasks,), "weights (num_tasks,)")
        return weights

    def forget(self) -> None:
        """Drop what was recorded of the last backward pass."""
        raise NotImplementedError

    def _compiled_output(self, x: Tensor) -> tuple[Tensor, Tensor, bool]:
        """What the tasks have views of in a compiled graph, the inputs that the gradients are
        measured with, and whether all but the last dimension of both are rows."""
        raise NotImplementedError
