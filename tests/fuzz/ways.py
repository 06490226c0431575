"""What has to hold of a random call, by the way that it is tried."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import fastmtl
from tests.conftest import running_on
from tests.cuda.guarded import Guarded
from tests.fuzz.cases import Case
from tests.ops.contract import TRANSFORMS, Calls, of_leaves
from tests.problems import (
    CUDA_ALONE,
    NOT_DIFFERENTIABLE,
    Problem,
    closed_form,
    exact,
    seeds_for,
    solve,
)
from tests.tolerances import RTOL, assert_close

SMALLEST = 1e-36  # below it float32 has not all its digits
ROUNDINGS = 8  # that a result passes through, as for tests.tolerances.assert_close


def run(case: Case) -> None:
    """Raise AssertionError, or what nobody expects, where a case does not hold; skips where it
    cannot be tried."""
    if case.where == "triton" and case.op in CUDA_ALONE:
        return
    problem = case.problem()
    with running_on(case.where):
        RUN[case.way](case, problem)


def _exact(case: Case, problem: Problem) -> None:
    """Results and gradients are those of float64."""
    if case.op == "least_norm_weights":
        return  # of tasks that depend on each other there are several
    seeds = seeds_for(problem)
    wanted = exact(problem, seeds)
    with _guarded(case):
        _assert_all_near(solve(problem.changed(torch.clone), seeds), wanted)


def _guarded(case: Case) -> AbstractContextManager[object]:
    """Memory of which kernels that tell what they touch may touch no byte more, aligned or not."""
    return Guarded(case.place % 2 == 0) if case.where == "native-cuda" else nullcontext()


def _assert_all_near(actual: list[Tensor], wanted: list[Tensor]) -> None:
    """As tests.tolerances.assert_close, but to a rounding of 1 at least: where all terms cancel
    their roundings are left."""
    for one, other in zip(actual, wanted, strict=True):
        rtol = ROUNDINGS * RTOL[one.dtype]
        size = max(
            1.0,
            other[other.isfinite()].abs().double().amax().item() if other.isfinite().any() else 0.0,
        )
        torch.testing.assert_close(
            one.double(), other.double(), rtol=rtol, atol=rtol * size, equal_nan=True
        )


def _at_one_place(value: float, tensor: Tensor) -> Tensor:
    if not tensor.numel():
        return tensor
    place = torch.arange(tensor.numel()).view(tensor.shape) == tensor.numel() // 3
    return tensor.masked_fill(place, value)


def _scaled(scale: float, tensor: Tensor) -> Tensor:
    return tensor * (scale if tensor.dtype != torch.float16 else scale ** (1 / 6))


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "zero": torch.zeros_like,
    "nan": partial(_at_one_place, torch.nan),
    "inf": partial(_at_one_place, torch.inf),
    "-inf": partial(_at_one_place, -torch.inf),
    "huge": partial(_scaled, 1e25),
    "tiny": partial(_scaled, 1e-25),
    "largest": lambda x: _at_one_place(torch.finfo(x.dtype).max, x),
}


def _values(case: Case, problem: Problem) -> None:
    """What is not finite in the reference is not finite, what is finite there is the same."""
    if case.op == "task_gru_layer":
        return  # rows of no sequence have to be finite, and no kernel multiplies a state that is 0
    if case.op == "least_norm_weights" and case.value == "largest":
        return  # no Gramian
    if case.op == "task_grad_gramian" and case.value == "largest":
        return  # (x x^T) d_j may overflow where d_j^T x does not
    if case.op == "task_grad_norms" and (case.dtype, case.value) == ("float64", "largest"):
        return  # sums of squares are in float64
    name = list(problem.leaves)[case.place % len(problem.leaves)]
    problem = problem.put(**{name: CHANGES[case.value](problem.leaves[name])})
    seeds = seeds_for(problem)
    actual, wanted = solve(problem, seeds), closed_form(problem, seeds)
    special = case.value in ("nan", "inf", "-inf")
    for index, (one, other) in enumerate(zip(actual, wanted, strict=True)):
        finite = other.isfinite()
        if special:  # of large numbers, more may overflow in the reference
            assert (one.isfinite() <= finite).all()
        if index < len(seeds):  # where a result is NaN in place of inf, so is its gradient
            assert (one.isfinite() >= finite).all()
            assert_close(one[finite] + SMALLEST, other[finite] + SMALLEST, one.dtype, ROUNDINGS)


def _lazy(case: Case, problem: Problem) -> None:
    """Tensors whose memory is not what they stand for are read as what they stand for."""
    if case.place % 2:
        lazy = problem.changed(lambda leaf: torch._neg_view(leaf.neg()))
        _assert_all_near(lazy.outputs(), problem.outputs())
        return
    lazy = problem.changed(lambda x: torch._efficientzerotensor(x.shape, dtype=x.dtype))
    try:
        results = lazy.outputs()
    except (ValueError, RuntimeError) as error:
        assert re.search("tensors with memory|doesn't have storage", str(error))  # noqa: PT017
    else:
        _assert_all_near(results, problem.changed(torch.zeros_like).outputs())


def _registered(case: Case, problem: Problem) -> None:
    """The registered op is the eager one."""
    seeds = seeds_for(problem)
    _assert_all_near(solve(problem.registered(), seeds), solve(problem, seeds))


def _wrong(case: Case, problem: Problem) -> None:
    """Called with one argument changed, a registered op raises or gives something: no crash."""
    with Calls() as recorder:
        problem.registered().outputs()
    for op, arguments, _ in recorder.calls:
        changed = [a.as_subclass(Tensor) if isinstance(a, Tensor) else a for a in arguments]
        index = case.place % len(changed)
        changed[index] = _corrupted(changed[index], case.option)
        try:
            op(*changed)
        except (TypeError, ValueError, RuntimeError):
            continue


def _refused(case: Case, problem: Problem) -> None:
    """Called with one argument changed, the op says what is wrong with it, or takes it."""
    arguments = list((problem.leaves | problem.others).items())
    name, value = arguments[case.place % len(arguments)]
    problem = problem.put(**{name: _corrupted(value, case.option)})
    try:
        problem.outputs()
    except (TypeError, ValueError) as error:
        assert ": expected" in str(error)  # noqa: PT017


TENSORS: list[Callable[[Tensor], Any]] = [
    lambda x: x[:-1],
    lambda x: x[..., :-1],
    lambda x: x.flatten(),
    lambda x: x[None],
    lambda x: x.double() if x.dtype != torch.float64 else x.float(),
    lambda x: x.to(torch.int64),
    lambda x: x + 10**9,
    lambda x: x.new_empty(0),
    lambda x: x * 0 - 1,
    lambda x: x.to("meta"),
    lambda x: x.to_sparse(),
    lambda x: x.tolist(),
]


def _corrupted(value: Any, option: int) -> Any:
    if isinstance(value, Tensor):
        return TENSORS[option % len(TENSORS)](value if value.dim() else value[None])
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return [-1, 0, 2**62, -(2**63), 2**63, None, 1.5][option % 7]
    if isinstance(value, float):
        return [-1.0, float("nan"), float("inf"), 1e308, "2", None][option % 6]
    if isinstance(value, list):
        return [[], value[:-1], value * 2, value[::-1], None, [2**62]][option % 6]
    return ["nonsense", None, 3, torch.ones(3)][option % 4]


def _transformed(case: Case, problem: Problem) -> None:
    """Transforms of torch.func give what they give of the reference, or raise."""
    if case.op in NOT_DIFFERENTIABLE and case.way != "vmap":
        return

    def transformed() -> list[Tensor]:
        results = TRANSFORMS[case.way](of_leaves(problem), tuple(problem.leaves.values()))
        return torch.utils._pytree.tree_leaves(results)

    if case.op == "task_gru_layer" and case.where != "reference":
        with pytest.raises(RuntimeError, match="cannot follow it"):
            transformed()
        return
    try:
        with fastmtl.use_backend("reference"):
            wanted = transformed()
    except RuntimeError:
        return  # that PyTorch cannot do it for these sizes says nothing of the op
    _assert_all_near(transformed(), wanted)


RUN: dict[str, Callable[[Case, Problem], None]] = {
    "exact": _exact,
    "values": _values,
    "lazy": _lazy,
    "registered": _registered,
    "wrong": _wrong,
    "refused": _refused,
} | dict.fromkeys(TRANSFORMS, _transformed)
