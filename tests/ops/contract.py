"""What the tests of all ops go by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

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


def of_leaves(problem: Problem) -> Callable[..., tuple[Tensor, ...]]:
    """A problem as a function of its leaves."""

    def function(*leaves: Tensor) -> tuple[Tensor, ...]:
        return tuple(problem.put(**dict(zip(problem.leaves, leaves, strict=True))).outputs())

    return function


def assert_same(actual: list[Tensor], wanted: list[Tensor], scale: float = 1) -> None:
    for one, other in zip(actual, wanted, strict=True):
        assert_close(one, other.double(), one.dtype, scale)
