"""Compiles the Triton kernels ahead of time, for GPUs that this machine need not have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, product
from typing import Any

import pytest
import torch

from fastmtl.backends import load
from fastmtl.backends.triton import INTERPRETED

triton = pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")

# Dtypes and compute capabilities. Every one takes long, so that most are slow, and a test of two
# ways takes one of the quick ones for each.
QUICK = [(torch.float32, 80), (torch.bfloat16, 90)]
TARGETS = [
    (dtype, capability)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16)
    for capability in (80, 90)
]


def quick_or_slow(case: Any, *quick: Any) -> Any:
    return [] if case in quick else [pytest.mark.slow]


def ways(name: str, *quick: Any, slow: Sequence[Any] = ()) -> Any:
    """Parametrises a test by the target and one more argument; the values of `slow` take long."""
    taken = list(zip(QUICK, quick, strict=True))
    cases = [
        pytest.param(*case, marks=quick_or_slow(case, *taken))
        for case in product(TARGETS, (*quick, *slow))
    ]
    return pytest.mark.parametrize(("dtype", name), cases, indirect=["dtype"], ids=_name)


def _name(value: Any) -> str:
    if value in TARGETS:
        return f"{value[0]}-sm_{value[1]}"
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


class Driver:
    """A GPU as Triton's launcher sees it: enough to compile for, and none to run on."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_device(self) -> int:
        return self.capability  # by which compiled kernels are told apart

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        return triton.backends.compiler.GPUTarget("cuda", self.capability, 32)


@pytest.fixture(
    params=[pytest.param(target, marks=quick_or_slow(target, *QUICK)) for target in TARGETS],
    ids=_name,
)
def dtype(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> Iterator[torch.dtype]:
    """A dtype, for which every launch is compiled in place of running it.

    By the launcher's own code, which makes a constant of 1 and of None, and knows of integers and
    addresses that 16 divides; each is another kernel.
    """
    dtype, capability = request.param
    sizes: list[int] = []
    launch = triton.runtime.jit.JITFunction.run

    def run(kernel: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        compiled = launch(kernel, *args, grid=grid, warmup=True, **kwargs)
        sizes.append(len(compiled.asm["cubin"]))

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(triton.runtime.jit.JITFunction, "run", run)
    monkeypatch.setattr(triton.runtime.driver, "_active", Driver(capability))
    yield dtype
    assert sizes
    assert min(sizes) > 1000


# Sizes that are 1, that 16 divides, and that neither holds for.
SHAPES = [(1, 1), (64, 16), (20, 7)]


@ways("reduction", "task", "none")
def test_focal_loss(dtype: torch.dtype, reduction: str) -> None:
    for rows, tasks in SHAPES:
        logits, scale = torch.zeros(rows, tasks, dtype=dtype), torch.zeros(tasks)
        mask, weight = logits == 0, scale + 1
        gamma = 2.0 if reduction == "task" else 2.5
        kernels = load("triton", "focal_loss")
        kernels.forward(logits, logits, mask, weight, gamma, reduction)
        grad = torch.zeros((rows, tasks) if reduction == "none" else ())
        kernels.backward(grad, scale, logits, mask, None, None, gamma, reduction)


@ways("reduction", "task", "none")
def test_multilabel_loss(dtype: torch.dtype, reduction: str) -> None:
    kernels = load("triton", "multilabel_loss")
    for rows, tasks in SHAPES:
        logits, scale = torch.zeros(rows, tasks, dtype=dtype), torch.zeros(tasks)
        grad, one = torch.zeros((rows, tasks) if reduction == "none" else ()), scale + 1
        weight, numbers = torch.ones(rows, tasks), [one, one, one, one, scale]
        if reduction == "task":  # whole powers, a margin, numbers of all tasks
            weight, numbers = None, [None] * 5
        options = [1.0, 4.0, 1.0, 1.0, 0.0, 0.05 if weight is None else 0.0, 0.5, 0.1, 2.0]
        arguments = (logits, logits, weight, *numbers, options, weight is not None, reduction)
        kernels.forward(*arguments)
        kernels.backward(grad, scale, *arguments)


@ways("reduction", "sum", "mean")
def test_reductions_to_one_number(dtype: torch.dtype, reduction: str) -> None:
    # One program, more than one, and a number of them that 16 divides.
    for rows in (20, 5000, 1 << 15):
        logits = torch.zeros(rows, 7, dtype=dtype)
        load("triton", "focal_loss").forward(logits, logits, None, None, 2.0, reduction)
        targets = torch.zeros(rows, 2, dtype=torch.int64)
        arguments = (logits, targets, None, [3, 4], -100, 2.0, reduction)
        load("triton", "grouped_focal_loss").forward(*arguments)


def test_grouped_focal_loss(dtype: torch.dtype) -> None:
    kernels = load("triton", "grouped_focal_loss")
    for rows, sizes in [(1, [1]), (64, [16]), (20, [3, 4])]:
        groups, classes = len(sizes), sum(sizes)
        logits, scale = torch.zeros(rows, classes, dtype=dtype), torch.zeros(groups)
        targets, weight = torch.zeros(rows, groups, dtype=torch.int64), torch.ones(classes)
        arguments = (logits, targets, weight, sizes, -100, 2.5, "task")
        kernels.forward(*arguments)
        kernels.backward(torch.zeros(groups), scale, *arguments)


def test_norms(dtype: torch.dtype) -> None:
    kernels = load("triton", "stacked_norms")
    for shape in [(1, 1), (3, 64), (3, 41)]:
        stacked = torch.zeros(shape, dtype=dtype)
        norms = kernels.forward([stacked])
        kernels.backward(norms, norms, [stacked])


@ways("sizes", (12, 33), (3, 64), slow=[(12, 1), (12, 64), (3, 1), (3, 33)])
def test_graph_fusion(dtype: torch.dtype, sizes: tuple[int, int]) -> None:
    count, features = sizes
    edges = torch.tensor(list(combinations(range(count), 2)))
    vertices = torch.zeros(2, count, features, dtype=dtype)
    importance = torch.zeros(2, count, dtype=dtype)
    edge_vertices = torch.zeros(2, len(edges), features // 2 + 1, dtype=dtype)
    kernels = load("triton", "graph_fusion")
    fused, weights, stats = kernels.forward(vertices, importance, edge_vertices, edges, 0.5)
    kernels.backward(fused, weights, stats, vertices, importance, edge_vertices, edges, 0.5)
    kernels = load("triton", "fusion_edge_weights")
    kernels.forward(vertices, importance, edges, 0.5)
    kernels.backward(weights, stats, vertices, importance, edges, 0.5)


@ways("tasks", 20, 7, slow=[100])
def test_least_norm(dtype: torch.dtype, tasks: int) -> None:
    if dtype not in (torch.float32, torch.float64):
        dtype = torch.float32
    load("triton", "least_norm_weights").forward(torch.eye(tasks, dtype=dtype), 100)
