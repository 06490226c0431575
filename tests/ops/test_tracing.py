"""How tracers and transforms see the ops: as registered ones, or through the reference."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import fastmtl
from tests.ops.contract import TRANSFORMS, Calls, assert_same, of_leaves, on_backends
from tests.problems import NOT_DIFFERENTIABLE, PROBLEMS, seeds_for, solve

F64 = torch.float64
everywhere = on_backends("reference", "native")


@everywhere
def test_registered_op_is_the_eager_one(name: str, backend: str) -> None:
    """On the reference: the closed form of the gradient is what autograd makes of the formula."""
    problem = PROBLEMS[name](F64)
    seeds = seeds_for(problem)
    with Calls() as recorder:
        results = solve(problem.registered(), seeds)
    assert recorder.calls
    assert_same(results, solve(problem, seeds))


# The fakes have to agree with every backend, the rest is the same for all.
QUICK_CHECKS = ("test_schema", "test_faketensor")


@everywhere
def test_opcheck(name: str, backend: str) -> None:
    problem = PROBLEMS[name](F64).registered()
    with Calls() as recorder:
        problem.outputs()
        solve(problem)
    assert recorder.calls
    for op, args, kwargs in recorder.calls:
        plain = torch.utils._pytree.tree_map(_plain, (args, kwargs))
        torch.library.opcheck(op, *plain, test_utils=QUICK_CHECKS)


@on_backends("native")
def test_opcheck_of_autograd(name: str, backend: str) -> None:
    problem = PROBLEMS[name](F64).registered()
    with Calls() as recorder:
        (problem if name in NOT_DIFFERENTIABLE else problem.differentiable()).outputs()
    for op, args, kwargs in recorder.calls:
        torch.library.opcheck(op, *torch.utils._pytree.tree_map(_plain, (args, kwargs)))


def _plain(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.detach().as_subclass(Tensor).requires_grad_(value.requires_grad)


@everywhere
def test_without_memory(name: str, backend: str) -> None:
    problem = PROBLEMS[name](torch.bfloat16)
    for out, wanted in zip(problem.to("meta").outputs(), problem.outputs(), strict=True):
        assert out.is_meta
        assert (out.shape, out.dtype) == (wanted.shape, wanted.dtype)


@on_backends("native")
def test_compiled(name: str, backend: str) -> None:
    """The first problem of an op with sizes that may change, the others with sizes that may not."""
    problem = PROBLEMS[name](F64)
    compiled = torch.compile(
        problem.op, fullgraph=True, dynamic="-" not in name, backend="aot_eager"
    )
    seeds = seeds_for(problem)
    assert_same(solve(replace(problem, op=compiled), seeds), solve(problem, seeds))


@on_backends("native")
def test_exported(name: str, backend: str) -> None:
    problem = PROBLEMS[name](F64)

    class Module(torch.nn.Module):
        def forward(self, *leaves: Tensor) -> tuple[Tensor, ...]:
            return of_leaves(problem)(*leaves)

    leaves = tuple(problem.leaves.values())
    program = torch.export.export(Module(), leaves)
    graphs = [str(m.graph) for m in program.graph_module.modules() if hasattr(m, "graph")]
    assert "fastmtl" in " ".join(graphs)
    assert_same(list(program.module()(*leaves)), problem.outputs())


@on_backends("native")
def test_a_tracer_follows_or_it_raises(name: str, backend: str) -> None:
    """Other values than the traced ones must not be given the traced results."""
    problem = PROBLEMS[name](F64)
    function, leaves = of_leaves(problem), tuple(problem.leaves.values())
    others = tuple(leaf + 0.5 for leaf in leaves)
    with warnings.catch_warnings(action="ignore"):
        traced = torch.jit.trace(function, leaves, check_trace=False)
    assert_same(list(traced(*others)), list(function(*others)))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("transform", TRANSFORMS)
@on_backends("native")
def test_transforms_follow_the_reference_or_raise(name: str, backend: str, transform: str) -> None:
    problem = PROBLEMS[name](F64)
    if name in NOT_DIFFERENTIABLE and transform != "vmap":
        pytest.skip("has no gradient")

    def transformed() -> list[Tensor]:
        results = TRANSFORMS[transform](of_leaves(problem), tuple(problem.leaves.values()))
        return torch.utils._pytree.tree_leaves(results)

    if name.startswith("task_gru"):
        with pytest.raises(RuntimeError, match="cannot follow it; take the network out of torch"):
            transformed()
        return
    with fastmtl.use_backend("reference"):
        wanted = transformed()
    assert_same(transformed(), wanted)


@on_backends("native", without=NOT_DIFFERENTIABLE)
def test_batched_backward(name: str, backend: str) -> None:
    problem = PROBLEMS[name](F64).differentiable()
    output, *_ = problem.outputs()
    leaf = next(iter(problem.leaves.values()))
    seeds = torch.randn(3, *output.shape, dtype=F64)
    wanted = [torch.autograd.grad(output, leaf, seed, retain_graph=True)[0] for seed in seeds]

    def pull(seed: Tensor) -> Tensor:
        return torch.autograd.grad(output, leaf, seed, retain_graph=True)[0]

    def batched() -> Tensor:
        return torch.autograd.grad(output, leaf, seeds, is_grads_batched=True, retain_graph=True)[0]

    for at_once in (lambda: torch.func.vmap(pull)(seeds), batched):
        if name.startswith("task_gru"):
            with pytest.raises(RuntimeError, match="cannot follow it"):
                at_once()
        else:
            assert_same([at_once()], [torch.stack(wanted)])
