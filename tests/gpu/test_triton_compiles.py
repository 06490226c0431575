"""Compiles the Triton kernels ahead of time, for GPUs that this machine need not have."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
import torch

from fastmtl.backends import load
from fastmtl.backends.triton import INTERPRETED

triton = pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")

POINTERS = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.uint8: "*u8",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
# Dtypes and compute capabilities. Every one takes long, so that most are slow, and a test of two
# ways takes one of the quick ones for each.
QUICK = [(torch.float32, 80), (torch.bfloat16, 90)]
TARGETS = [
    (dtype, capability)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16)
    for capability in (80, 90)
]


def quick_or_slow(target: tuple[torch.dtype, int], *quick: tuple[torch.dtype, int]) -> Any:
    return [] if target in quick else [pytest.mark.slow]


def two_ways(name: str, *ways: Any) -> Any:
    """Parametrises a test by the target and one more argument."""
    cases = [
        pytest.param(target, way, marks=quick_or_slow(target, quick))
        for way, quick in zip(ways, QUICK, strict=True)
        for target in TARGETS
    ]
    return pytest.mark.parametrize(("dtype", name), cases, indirect=["dtype"], ids=_name)


def _name(value: Any) -> str:
    return f"{value[0]}-sm_{value[1]}" if isinstance(value, tuple) else str(value)


def compile_launch(kernel: Any, capability: int, args: Any, kwargs: Any) -> bytes:
    """The machine code of a kernel for the arguments of a launch."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    parameters = inspect.signature(kernel.fn)
    signature: dict[str, str] = {}
    constants: dict[tuple[int, ...], Any] = {}
    options = {name: kwargs.pop(name) for name in ("num_warps",) if name in kwargs}
    for index, (name, value) in enumerate(parameters.bind(*args, **kwargs).arguments.items()):
        constant = "constexpr" in str(parameters.parameters[name].annotation)
        if constant or value is None:
            signature[name] = "constexpr"
            constants[index,] = value
        elif isinstance(value, torch.Tensor):
            signature[name] = POINTERS[value.dtype]
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i32"
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    target = GPUTarget("cuda", capability, 32)
    code: bytes = triton.compile(source, target=target, options=options).asm["cubin"]
    return code


@pytest.fixture(
    params=[pytest.param(target, marks=quick_or_slow(target, *QUICK)) for target in TARGETS],
    ids=_name,
)
def dtype(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> Iterator[torch.dtype]:
    """A dtype, for which every launch is compiled in place of running it."""
    dtype, capability = request.param
    sizes: list[int] = []

    def run(kernel: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        sizes.append(len(compile_launch(kernel, capability, args, kwargs)))

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(triton.runtime.jit.JITFunction, "run", run)
    yield dtype
    assert sizes
    assert min(sizes) > 1000


@two_ways("reduction", "task", "none")
def test_focal_loss(dtype: torch.dtype, reduction: str) -> None:
    logits, scale = torch.zeros(20, 7, dtype=dtype), torch.zeros(7)
    mask, weight = logits == 0, scale + 1
    gamma = 2.0 if reduction == "task" else 2.5
    kernels = load("triton", "focal_loss")
    kernels.forward(logits, logits, mask, weight, gamma, reduction)
    grad = torch.zeros((20, 7) if reduction == "none" else ())
    kernels.backward(grad, scale, logits, mask, None, None, gamma, reduction)


def test_grouped_focal_loss(dtype: torch.dtype) -> None:
    logits, scale = torch.zeros(20, 7, dtype=dtype), torch.zeros(2)
    targets, weight = torch.zeros(20, 2, dtype=torch.int64), torch.ones(7)
    arguments = (logits, targets, weight, [3, 4], -100, 2.5, "task")
    kernels = load("triton", "grouped_focal_loss")
    kernels.forward(*arguments)
    kernels.backward(torch.zeros(2), scale, *arguments)


def test_norms(dtype: torch.dtype) -> None:
    stacked = torch.zeros(3, 40, dtype=dtype)
    kernels = load("triton", "stacked_norms")
    norms = kernels.forward([stacked])
    kernels.backward(norms, norms, [stacked])


@two_ways("count", 12, 3)
def test_graph_fusion(dtype: torch.dtype, count: int) -> None:
    edges = torch.tensor(list(combinations(range(count), 2)))
    vertices, importance = torch.zeros(2, count, 64, dtype=dtype), torch.zeros(2, count).to(dtype)
    edge_vertices = torch.zeros(2, len(edges), 32, dtype=dtype)
    kernels = load("triton", "graph_fusion")
    fused, weights, stats = kernels.forward(vertices, importance, edge_vertices, edges, 0.5)
    kernels.backward(fused, weights, stats, vertices, importance, edge_vertices, edges, 0.5)
    kernels = load("triton", "fusion_edge_weights")
    kernels.forward(vertices, importance, edges, 0.5)
    kernels.backward(weights, stats, vertices, importance, edges, 0.5)


@two_ways("tasks", 100, 7)
def test_least_norm(dtype: torch.dtype, tasks: int) -> None:
    if dtype not in (torch.float32, torch.float64):
        dtype = torch.float32
    load("triton", "least_norm_weights").forward(torch.eye(tasks, dtype=dtype), 100)
