"""What all ops have in common. An op joins by its entry in `tests.problems.PROBLEMS`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import fastmtl
from fastmtl.backends import native
from fastmtl.ops import graph_fusion
from tests.conftest import ISAS, ON_GPUS
from tests.ops.contract import assert_same, of_leaves, on_backends
from tests.problems import (
    NOT_DIFFERENTIABLE,
    PROBLEMS,
    Problem,
    focal_loss_problem,
    graph_fusion_problem,
    grouped_focal_loss_problem,
    least_norm_problem,
    multilabel_loss_problem,
    seeds_for,
    solve,
    stacked_norms_problem,
)
from tests.tolerances import assert_close
from tests.views import VIEWS

F64 = torch.float64


everywhere = on_backends("reference", "native")
differentiated = on_backends("reference", "native", without=NOT_DIFFERENTIABLE)


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


def test_instruction_sets_that_change_meanwhile() -> None:
    problem = PROBLEMS["task_grad_gramian"](torch.float32)
    seeds, before = seeds_for(problem), native.isa()
    wanted, results = solve(problem, seeds), []
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            results.append(solve(problem, seeds))

    worker = threading.Thread(target=work)
    worker.start()
    try:
        while len(results) < 20 and worker.is_alive():
            for name in ISAS:
                native.use_isa(name)
    finally:
        done.set()
        worker.join()
        native.use_isa(before)
    assert len(results) >= 20
    for result in results:
        assert_same(result, wanted)


# Those whose results go through no matrix product of PyTorch.
@pytest.mark.parametrize(
    "name", ["focal_loss", "multilabel", "grouped", "norms", "fusion", "least"]
)
def test_number_of_threads_changes_no_bit(name: str, isa: str) -> None:
    problem = LARGE[name]()
    seeds, before, results = seeds_for(problem), torch.get_num_threads(), []
    try:
        for count in (1, 2, 3, 8):
            torch.set_num_threads(count)
            results.append(solve(problem, seeds))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert_same_bits(other, results[0])


LARGE: dict[str, Callable[[], Problem]] = {
    "focal_loss": lambda: focal_loss_problem(5000, 33),
    "multilabel": lambda: multilabel_loss_problem(5000, 33, clip=0.1),
    "grouped": lambda: grouped_focal_loss_problem(3000, [2, 9, 4]),
    "norms": lambda: stacked_norms_problem((3, 200_001), (3, 3)),
    "fusion": lambda: graph_fusion_problem(graph_fusion, (60, 5, 300, 100)),
    "least": lambda: least_norm_problem(100, iterations=1000),
}


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
    """Operands of several dtypes are computed in the widest, which autocast does not narrow; those
    of the GRU layer, a matrix product, in the dtype of autocast."""
    problem = PROBLEMS[name](torch.float32)
    if name in NOT_DIFFERENTIABLE:
        mixtures = [problem]
    elif name.startswith("stacked"):
        mixtures = [problem.changed(Tensor.bfloat16)]
    else:
        ends = {next(iter(problem.leaves)), next(reversed(problem.leaves))}
        mixtures = [problem.put(**{end: problem.leaves[end].bfloat16()}) for end in ends]
    for mixed in mixtures:
        with torch.autocast("cpu", torch.bfloat16):
            outputs = mixed.outputs()
        assert_same(outputs, mixed.changed(Tensor.float).outputs())


@pytest.mark.parametrize("name", [name for name in PROBLEMS if len(PROBLEMS[name](F64).leaves) > 1])
def test_mixed_dtypes_raise(name: str) -> None:
    problem = PROBLEMS[name](torch.float32)
    first = next(iter(problem.leaves))
    with pytest.raises(TypeError, match="expected the dtype of"):
        problem.put(**{first: problem.leaves[first].bfloat16()}).outputs()


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
