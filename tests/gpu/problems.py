"""Inputs for the GPU kernels, and what float64 makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

import fastmtl
from fastmtl.ops import (
    focal_loss,
    fusion_edge_weights,
    graph_fusion,
    grouped_focal_loss,
    stacked_norms,
    task_grad_gramian,
    task_grad_norms,
)
from fastmtl.ops.task_gru import task_gru_layer

# A problem: a function of tensors, those it is differentiated in, and those it is not.
Function = Callable[[list[Tensor], list[Tensor]], Sequence[Tensor]]
Problem = tuple[Function, list[Tensor], list[Tensor]]
NAN = float("nan")


def focal_problem(
    rows: int, tasks: int, dtype: torch.dtype, labels: torch.dtype = torch.float32, **options: Any
) -> Problem:
    """Labels are missing by NaN where their dtype has it, and by a mask."""
    targets = (torch.rand(rows, tasks) > 0.6).to(labels)
    if labels.is_floating_point:
        targets[torch.rand(rows, tasks) > 0.9] = NAN
        targets[:, 1:2] = NAN
    constants = [targets, torch.rand(rows, tasks) > 0.1, torch.rand(tasks) + 0.5]

    def run(leaves: list[Tensor], constants: list[Tensor]) -> list[Tensor]:
        targets, mask, weight = constants
        return [focal_loss(*leaves, targets, mask=mask, pos_weight=weight, **options)]

    return run, [(4 * torch.randn(rows, tasks)).to(dtype)], constants


def grouped_problem(rows: int, sizes: list[int], dtype: torch.dtype, **options: Any) -> Problem:
    targets = torch.stack([torch.randint(size, (rows,)) for size in sizes], 1)
    targets[torch.rand(rows, len(sizes)) > 0.85] = -100

    def run(leaves: list[Tensor], constants: list[Tensor]) -> list[Tensor]:
        targets, weight = constants
        return [grouped_focal_loss(*leaves, targets, sizes, weight=weight, **options)]

    logits = (3 * torch.randn(rows, sum(sizes))).to(dtype)
    return run, [logits], [targets, torch.rand(sum(sizes)) + 0.5]


def fusion_problem(
    batch: int, count: int, features: int, width: int, dtype: torch.dtype
) -> Problem:
    edges = list(combinations(range(count), 2))
    leaves = [
        torch.randn(batch, count, features),
        torch.randn(batch, count),
        torch.randn(batch, len(edges), width),
    ]

    def run(leaves: list[Tensor], constants: list[Tensor]) -> list[Tensor]:
        vertices, importance, edge_vertices = leaves
        alone = fusion_edge_weights(vertices, importance, edges, 0.4)
        return [*graph_fusion(vertices, importance, edges, edge_vertices, 0.4), alone]

    return run, [leaf.to(dtype) for leaf in leaves], []


def norms_problem(shape: tuple[int, ...], dtype: torch.dtype) -> Problem:
    parts = [torch.randn(shape).to(dtype), torch.randn(shape[0], 3).to(dtype)]
    return (lambda leaves, _: [stacked_norms(leaves)]), parts, []


def grads_problem(
    tasks: int, samples: int, features: int, outputs: int, dtype: torch.dtype
) -> Problem:
    def run(leaves: list[Tensor], constants: list[Tensor]) -> list[Tensor]:
        return [task_grad_norms(*leaves), task_grad_gramian(*leaves)]

    leaves = [torch.randn(samples, features), torch.randn(tasks, samples, outputs)]
    return run, [leaf.to(dtype) for leaf in leaves], []


def gru_problem(
    tasks: int,
    directions: int,
    hidden: int,
    lengths: list[int],
    dtype: torch.dtype,
    inputs: int = 5,
    shared: bool = True,
    gap: int = 2,
) -> Problem:
    """`gap` rows before each sequence belong to none of them."""
    count = torch.tensor(lengths, dtype=torch.int64)
    ends = (count + gap).cumsum(0)
    rows = int(ends[-1])
    x = torch.randn((rows, inputs) if shared else (tasks, rows, inputs))
    tails: list[tuple[int, ...]] = [(inputs,), (hidden,), (), ()]
    shape = tasks, directions, 3 * hidden
    weights = [(2 * torch.rand(*shape, *tail) - 1) * hidden**-0.5 for tail in tails]

    def run(leaves: list[Tensor], _: list[Tensor]) -> list[Tensor]:
        return [task_gru_layer(*leaves, ends - count, count)]

    return run, [leaf.to(dtype) for leaf in (x, *weights)], []


def solve(
    problem: Problem, device: torch.device, seeds: list[Tensor] | None = None
) -> list[Tensor]:
    """The results, then the gradients of their product with `seeds` (ones)."""
    function, leaves, constants = problem
    leaves = [leaf.detach().to(device).requires_grad_() for leaf in leaves]
    outputs = function(leaves, [constant.to(device) for constant in constants])
    seeds = [torch.ones_like(out) for out in outputs] if seeds is None else seeds
    grads = torch.autograd.grad(
        outputs,
        leaves,
        [seed.to(out) for seed, out in zip(seeds, outputs, strict=True)],
        allow_unused=True,
    )
    results = [*outputs, *(grad for grad in grads if grad is not None)]
    return [result.detach().cpu() for result in results]


def reference(problem: Problem, seeds: list[Tensor] | None = None) -> list[Tensor]:
    """The same by the reference in float64."""
    function, leaves, constants = problem
    with fastmtl.use_backend("reference"):
        doubled = (function, [leaf.double() for leaf in leaves], constants)
        return solve(doubled, torch.device("cpu"), seeds)


def seeds_for(problem: Problem) -> list[Tensor]:
    """Random factors for the results."""
    function, leaves, constants = problem
    with torch.no_grad(), fastmtl.use_backend("reference"):
        return [torch.randn(out.shape).double() for out in function(leaves, constants)]
