"""The weight matrix at which gradient norms are taken: a shared layer, or one weight per task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from fastmtl import ops
from fastmtl.balancing.backward_pass import BackwardPass
from fastmtl.nn.balance_at import need_balance_at
from fastmtl.nn.scope import Scope, need_scope
from fastmtl.nn.shared import SharedLinear, TaskFork, is_shared_weight

_AT_FORK = (
    "under FSDP, balance at a SharedLinear or TaskFork, which see gradients before they are spread "
    'over the ranks (balance_at="shared")'
)
# The modules that are what they name, not a model to look into.
_WEIGHTS = (SharedLinear, TaskFork, nn.ParameterList)


class GradientTarget(Protocol):
    """Something that sees the norm of every task's gradient in one backward pass."""

    num_tasks: int
    device: torch.device | None

    # Ranks over which gradients are averaged before norms are taken; None for this process alone.
    group: distributed.ProcessGroup | None

    def norms_of(self, backward: BackwardPass) -> Tensor:
        """Run the pass; return the norms (T,) of the tasks' gradients in it."""


class ForkTarget:
    """The weight of a SharedLinear, or the representation at a TaskFork, or a scope below it."""

    def __init__(self, layer: SharedLinear | TaskFork, scope: Scope = "layer") -> None:
        self.layer = layer
        self.scope = scope
        self.num_tasks = layer.num_tasks
        self.device = layer.weight.device if isinstance(layer, SharedLinear) else None
        layer.watch_for()

    def attach(self, balancer: nn.Module | None = None) -> None:
        """Have the layer measure in the scope, for a balancer that looks at its norms."""
        if self.layer.scope != self.scope:
            self.layer.measure_over(self.scope)
        if balancer is not None:
            self.layer.watch_for(balancer)

    @property
    def group(self) -> distributed.ProcessGroup | None:
        return self.layer.process_group

    @group.setter
    def group(self, group: distributed.ProcessGroup | None) -> None:
        self.layer.process_group = group

    def norms_of(self, backward: BackwardPass) -> Tensor:
        self.layer.forget()
        backward()
        return self.layer.task_grad_norms()


class ParameterTarget:
    """Weights that belong to one task each: stacked in one parameter (T, ...), or a list of T."""

    def __init__(self, parameters: Sequence[nn.Parameter], stacked: bool) -> None:
        self.parameters = list(parameters)
        if any(hasattr(parameter, "device_mesh") for parameter in parameters):
            raise ValueError(f"model: expected whole parameters, got sharded ones; {_AT_FORK}")
        self.stacked = stacked
        self.num_tasks = len(parameters[0]) if stacked else len(parameters)
        self.device: torch.device | None = parameters[0].device
        self.group: distributed.ProcessGroup | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Process groups cannot be copied.
        return {**self.__dict__, "group": None}

    def norms_of(self, backward: BackwardPass) -> Tensor:
        if self.group is not None:
            return self._norms_over_ranks(backward, self.group)
        norms: list[Tensor | None] = [None] * len(self.parameters)
        with self._capturing(norms, self._norms):
            backward()
        absent = self.parameters[0].new_zeros(1)
        return torch.cat([absent if norm is None else norm for norm in norms])

    def _norms_over_ranks(self, backward: BackwardPass, group: distributed.ProcessGroup) -> Tensor:
        # Apart from DistributedDataParallel's own reduction, which no_sync() may leave out.
        grads: list[Tensor | None] = [None] * len(self.parameters)
        with self._capturing(grads, torch.clone):
            backward()
        norms = []
        for parameter, grad in zip(self.parameters, grads, strict=True):
            mean = torch.zeros_like(parameter) if grad is None else grad
            distributed.all_reduce(mean, group=group)
            norms.append(self._norms(mean) / distributed.get_world_size(group))
        return torch.cat(norms)

    def _norms(self, grad: Tensor) -> Tensor:
        return ops.stacked_norms(grad if self.stacked else grad.unsqueeze(0))

    @contextmanager
    def _capturing(
        self, results: list[Tensor | None], record: Callable[[Tensor], Tensor]
    ) -> Iterator[None]:
        """Fill in `record` of the gradients on their way to `.grad`, which may hold older ones."""

        def capture(index: int, grad: Tensor) -> None:
            if results[index] is not None:
                raise RuntimeError(
                    "a parameter of the balancer received its gradient in several parts; "
                    "checkpoint with use_reentrant=False"
                )
            results[index] = record(grad)

        handles = [
            parameter.register_hook(lambda grad, index=index: capture(index, grad))
            for index, parameter in enumerate(self.parameters)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        if all(result is None for result in results):
            raise RuntimeError(
                f"the losses do not depend on the parameters of the balancer; {_AT_FORK}"
            )


def resolve(model: Any, balance_at: str | None, scope: Any = "layer") -> GradientTarget:
    """The target that `model`, `balance_at` and `scope` name; see GradNorm."""
    target = _resolve(model, balance_at)
    _, inner = unwrap(model)
    scope = need_scope(scope, inner if isinstance(inner, nn.Module) else None)
    if isinstance(target, ForkTarget):
        _need_same_scope(target.layer, scope)
        target.scope = scope
    elif scope != "layer":
        raise ValueError(
            'scope: expected "layer" for weights that belong to one task each, got '
            f"{scope if isinstance(scope, str) else 'modules'}; others need a SharedLinear or "
            "TaskFork"
        )
    return target


def _need_same_scope(layer: SharedLinear | TaskFork, scope: Scope) -> None:
    if layer.watchers and layer.scope != scope:
        raise ValueError(
            f"scope: {' and '.join(layer.watchers)} looks at the same layer in another scope; "
            "delete that balancer first, or give both the same"
        )


def _resolve(model: Any, balance_at: str | None) -> GradientTarget:
    if balance_at is not None:
        need_balance_at(balance_at)
    _, inner = unwrap(model)
    if hasattr(inner, "task_weight"):
        return _target_of(_task_weight(inner, balance_at))
    if balance_at is not None and not (balance_at == "shared" and isinstance(model, nn.Module)):
        raise ValueError(
            f"balance_at: {balance_at!r} needs a model with a task_weight method, "
            f"got {type(model).__name__}"
        )
    if not isinstance(model, nn.Module) or isinstance(model, _WEIGHTS):
        return _target_of(model)
    return ForkTarget(_only_fork(model))


def unwrap(model: Any) -> tuple[DistributedDataParallel | None, Any]:
    """What gives `model` its ranks, if it is in there, and the model inside of torch.compile,
    DistributedDataParallel and other wrappers, which keep it as `_orig_mod` or `module`."""
    parallel = None
    while isinstance(model, nn.Module) and not hasattr(type(model), "task_weight"):
        if isinstance(model, DistributedDataParallel):
            parallel = model
        inner = getattr(model, "_orig_mod", getattr(model, "module", None))
        if not isinstance(inner, nn.Module):
            break
        model = inner
    return parallel, model


def _task_weight(model: Any, balance_at: str | None) -> Any:
    if balance_at is not None:
        return model.task_weight(balance_at)
    try:
        return model.task_weight("shared")
    except ValueError:
        return model.task_weight("first")


def _only_fork(model: nn.Module) -> SharedLinear | TaskFork:
    forks = [m for m in model.modules() if isinstance(m, SharedLinear | TaskFork)]
    if len(forks) != 1:
        raise ValueError(
            "model: expected one SharedLinear or TaskFork in it, or a task_weight method, "
            f"got {type(model).__name__} with {len(forks)} of them; pass the layer itself"
        )
    return forks[0]


def _target_of(weight: Any) -> GradientTarget:
    if isinstance(weight, SharedLinear | TaskFork):
        return ForkTarget(weight)
    if isinstance(weight, nn.Parameter):
        _need_own(weight)
        if weight.dim() < 2:
            raise ValueError(
                f"model: expected a parameter stacked by task, (T, ...), got shape "
                f"{tuple(weight.shape)}"
            )
        return ParameterTarget([weight], stacked=True)
    if (
        isinstance(weight, Sequence | nn.ParameterList)
        and len(weight) > 0
        and all(isinstance(parameter, nn.Parameter) for parameter in weight)
    ):
        for parameter in weight:
            _need_own(parameter)
        return ParameterTarget(list(weight), stacked=False)
    raise TypeError(
        "model: expected a model with a task_weight method, a SharedLinear, a TaskFork, "
        f"a Parameter (T, ...) or a list of T Parameters, got {type(weight).__name__}"
    )


def _need_own(parameter: nn.Parameter) -> None:
    """Raise for a weight that no task has to itself, in the calling style of GradNorm's paper."""
    if is_shared_weight(parameter):
        raise ValueError(
            "model: expected weights that belong to one task each, got the weight of a "
            "SharedLinear, which all tasks share; pass the layer or the model itself"
        )
