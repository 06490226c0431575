"""What all ops have in common. An op joins by its entry in `tests.problems.PROBLEMS`."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import fastmtl
from tests.conftest import ON_GPUS
from tests.problems import (
    CUDA_ALONE,
    NOT_DIFFERENTIABLE,
    PROBLEMS,
    Problem,
    seeds_for,
    solve,
)
from tests.tolerances import assert_close
from tests.views import VIEWS

F64 = torch.float64


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


everywhere = on_backends("reference", "native")
differentiated = on_backends("reference", "native", without=NOT_DIFFERENTIABLE)


def of_leaves(problem: Problem) -> Callable[..., tuple[Tensor, ...]]:
    """A problem as a function of its leaves."""

    def function(*leaves: Tensor) -> tuple[Tensor, ...]:
        return tuple(problem.put(**dict(zip(problem.leaves, leaves, strict=True))).outputs())

    return function


def assert_same(actual: list[Tensor], wanted: list[Tensor], scale: float = 1) -> None:
    for one, other in zip(actual, wanted, strict=True):
        assert_close(one, other.double(), one.dtype, scale)


def assert_same_bits(actual: list[Tensor], wanted: list[Tensor]) -> None:
    for one, other in zip(actual, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


# Every view in a dtype of its own: what they share with dtypes is a loop over strides.
@pytest.mark.parametrize(
    ("view", "dtype"),
    [
        ("transposed", torch.float32),
        ("interleaved", torch.bfloat16),
        ("padded", F64),
        ("every-other", torch.float16),
        ("offset", torch.float32),
    ],
)
@everywhere
def test_strides(name: str, backend: str, view: str, dtype: torch.dtype) -> None:
    problem = PROBLEMS[name](dtype)
    seeds = seeds_for(problem)
    strided = problem.put(**{k: VIEWS[view](v) for k, v in problem.tensors().items()})
    strided_seeds = [VIEWS[view](seed.to(dtype)) for seed in seeds]
    assert_same(solve(strided, strided_seeds), solve(problem, [seed.to(dtype) for seed in seeds]))


@differentiated
def test_broadcast_gradient(name: str, backend: str) -> None:
    problem = PROBLEMS[name](F64).differentiable()
    leaves = list(problem.leaves.values())
    outputs = problem.outputs()
    broadcast = torch.autograd.grad(outputs, leaves, [torch.ones(()).expand_as(o) for o in outputs])
    dense = torch.autograd.grad(problem.outputs(), leaves, [torch.ones_like(o) for o in outputs])
    assert_same_bits(list(broadcast), list(dense))


@differentiated
def test_gradcheck(name: str, backend: str) -> None:
    problem = PROBLEMS[name](F64)
    # The norm of a zero gradient has no derivative.
    leaves = [leaf + 0.01 for leaf in problem.leaves.values()]
    inputs = [leaf.requires_grad_() for leaf in leaves]
    torch.autograd.gradcheck(of_leaves(problem), inputs, fast_mode=True)


@differentiated
def test_backward_twice_and_from_run_to_run(name: str, backend: str) -> None:
    problem = PROBLEMS[name](torch.float32).differentiable()
    leaves = list(problem.leaves.values())
    outputs = problem.outputs()
    total = sum(out.square().sum() for out in outputs)
    first = torch.autograd.grad(total, leaves, retain_graph=True)
    assert_same_bits(list(torch.autograd.grad(total, leaves)), list(first))
    again = problem.outputs()
    assert_same_bits(again, outputs)
    total = sum(out.square().sum() for out in again)
    assert_same_bits(list(torch.autograd.grad(total, leaves)), list(first))


# The reference differentiates twice.
@on_backends("native", without=NOT_DIFFERENTIABLE)
def test_second_derivative_raises(name: str, backend: str) -> None:
    problem = PROBLEMS[name](F64).differentiable()
    leaves = list(problem.leaves.values())
    (out, *_), weight = problem.outputs(), torch.ones((), dtype=F64, requires_grad=True)
    for total in (out.sum(), (weight * out).sum()):
        grads = torch.autograd.grad(total, leaves, create_graph=True, allow_unused=True)
        for grad in (grad for grad in grads if grad is not None):
            with pytest.raises(RuntimeError, match="second derivative"):
                grad.sum().backward(retain_graph=True)


@differentiated
def test_only_wanted_gradients(name: str, backend: str) -> None:
    problem = PROBLEMS[name](F64).differentiable()
    total = sum(out.square().sum() for out in problem.outputs())
    wanted = dict(
        zip(problem.leaves, torch.autograd.grad(total, problem.leaves.values()), strict=True)
    )
    for frozen in problem.leaves:
        one_less = problem.changed(torch.detach).differentiable()
        one_less.leaves[frozen].requires_grad_(False)
        if len(problem.leaves) > 1:
            sum(out.square().sum() for out in one_less.outputs()).backward()
        for leaf, tensor in one_less.leaves.items():
            assert (tensor.grad is None) == (leaf == frozen)
            if leaf != frozen:
                assert_close(tensor.grad, wanted[leaf])


@everywhere
def test_inference_needs_no_graph(name: str, backend: str) -> None:
    problem = PROBLEMS[name](torch.float32)
    wanted = problem.outputs()
    for context in (torch.inference_mode(), torch.no_grad()):
        with context:
            outputs = problem.differentiable().outputs()
        assert not any(out.requires_grad for out in outputs)
        assert_same(outputs, wanted)


@everywhere
def test_threads_change_no_bit_from_run_to_run(name: str, backend: str) -> None:
    problem = PROBLEMS[name](torch.float32)
    seeds, before = seeds_for(problem), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = solve(problem, seeds)
        torch.set_num_threads(3)
        three, again = solve(problem, seeds), solve(problem, seeds)
    finally:
        torch.set_num_threads(before)
    assert_same(three, one)
    assert_same_bits(again, three)


# Triton's interpreter serves one thread at a time.
@on_backends("reference", "native", on_gpus=ON_GPUS[:1])
def test_many_threads_at_once(name: str, backend: str) -> None:
    problem = PROBLEMS[name](torch.float32)
    seeds = seeds_for(problem)
    wanted = solve(problem, seeds)
    results: list[list[Tensor]] = []

    def work() -> None:
        with fastmtl.use_backend(backend):
            results.extend(solve(problem, seeds) for _ in range(3))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 12
    for result in results:
        assert_same(result, wanted)


@differentiated
def test_checkpointed(name: str, backend: str) -> None:
    problem = PROBLEMS[name](F64).differentiable()
    leaves = list(problem.leaves.values())

    def total() -> Tensor:
        return torch.stack([out.square().sum() for out in problem.outputs()]).sum()

    again = torch.autograd.grad(checkpoint(total, use_reentrant=False), leaves)
    assert_same_bits(list(again), list(torch.autograd.grad(total(), leaves)))


@everywhere
def test_autocast(name: str, backend: str) -> None:
    """Operands of several dtypes are computed in the widest, which autocast does not narrow."""
    problem = PROBLEMS[name](torch.float32)
    first = next(iter(problem.leaves))
    if name in NOT_DIFFERENTIABLE:
        mixed = problem
    elif name.startswith("stacked"):
        mixed = problem.changed(Tensor.bfloat16)
    else:
        mixed = problem.put(**{first: problem.leaves[first].bfloat16()})
    with torch.autocast("cpu", torch.bfloat16):
        outputs = mixed.outputs()
    assert_same(outputs, mixed.changed(Tensor.float).outputs())


@pytest.mark.parametrize("name", [name for name in PROBLEMS if len(PROBLEMS[name](F64).leaves) > 1])
def test_mixed_dtypes_raise(name: str) -> None:
    problem = PROBLEMS[name](torch.float32)
    first = next(iter(problem.leaves))
    with pytest.raises(TypeError, match="expected the dtype of"):
        problem.put(**{first: problem.leaves[first].bfloat16()}).outputs()


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


TRANSFORMS: dict[str, Callable[..., Any]] = {
    "vmap": lambda function, leaves: torch.func.vmap(function)(
        *(torch.stack([x, x]) for x in leaves)
    ),
    "grad": lambda function, leaves: torch.func.grad(lambda *x: function(*x)[0].sum())(*leaves),
    "jvp": lambda function, leaves: torch.func.jvp(function, leaves, leaves),
}


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


# An argument that is wrong in a way that has nothing to do with the op.
WRONG: dict[str, tuple[Callable[[Tensor], Any], type[Exception]]] = {
    "list": (Tensor.tolist, TypeError),
    "complex": (lambda x: x * 1j, TypeError),
    "dimensions": (lambda x: x[None, None, None], ValueError),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", PROBLEMS)
def test_wrong_tensors(name: str, wrong: str) -> None:
    problem = PROBLEMS[name](torch.float32)
    change, error = WRONG[wrong]
    for argument, value in problem.tensors().items():
        # Where an argument gives a size, another is found not to have it.
        with pytest.raises(error, match=r"^\w+(\[\d\])?: .*got"):
            problem.put(**{argument: change(value)}).outputs()


@pytest.mark.parametrize("name", [name for name in PROBLEMS if len(PROBLEMS[name](F64).leaves) > 1])
def test_another_device_raises(name: str) -> None:
    problem = PROBLEMS[name](torch.float32)
    for argument, value in problem.leaves.items():
        with pytest.raises(ValueError, match="expected the device of"):
            problem.put(**{argument: value.to("meta")}).outputs()
