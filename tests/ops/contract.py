"""What the tests of all ops go by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conftest import ON_GPUS
from tests.problems import CUDA_ALONE, PROBLEMS, Problem
from tests.tolerances import assert_close


def on_backends(
    *names: str, without: frozenset[str] = frozenset(), on_gpus: list[Any] = ON_GPUS
) -> Any:
    """Parametrises a test by the name of a problem and the `backend` that it runs on."""
    cases = [
        pytest.param(name, *where.values, id=f"{name}-{where.values[0]}", marks=where.marks)
        for name in PROBLEMS
        if name not in without
        for where in (*map(pytest.param, names), *on_gpus)
        if where.values[0] != "triton" or name.split("-")[0] not in CUDA_ALONE
    ]
    return pytest.mark.parametrize(("name", "backend"), cases, indirect=["backend"])


# How torch.func is applied to a function of leaves.
TRANSFORMS: dict[str, Callable[..., Any]] = {
    "vmap": lambda function, leaves: torch.func.vmap(function)(
        *(torch.stack([x, x]) for x in leaves)
    ),
    "grad": lambda function, leaves: torch.func.grad(lambda *x: function(*x)[0].sum())(*leaves),
    "jvp": lambda function, leaves: torch.func.jvp(function, leaves, leaves),
}


def of_leaves(problem: Problem) -> Callable[..., tuple[Tensor, ...]]:
    """A problem as a function of its leaves."""

    def function(*leaves: Tensor) -> tuple[Tensor, ...]:
        return tuple(problem.put(**dict(zip(problem.leaves, leaves, strict=True))).outputs())

    return function


def assert_same(actual: list[Tensor], wanted: list[Tensor], scale: float = 1) -> None:
    for one, other in zip(actual, wanted, strict=True):
        assert_close(one, other.double(), one.dtype, scale)


class Calls(TorchDispatchMode):
    """Keeps the calls of registered ops."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func.namespace == "fastmtl":
            self.calls.append((func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))
