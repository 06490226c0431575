"""Small calls of every op, and what float64 makes of them.

`PROBLEMS` is the one table by which an op joins the tests of what all ops have in common, on the
CPU (tests/ops/test_contract.py) and on a GPU (tests/gpu).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

import fastmtl
from fastmtl.ops import (
    focal_loss,
    fusion_edge_weights,
    gradvac_weights,
    graph_fusion,
    grouped_focal_loss,
    least_norm_weights,
    multilabel_loss,
    nonnegative_qp,
    pcgrad_weights,
    stacked_norms,
    task_grad_gramian,
    task_grad_norms,
    task_gru_layer,
)
from tests.tolerances import assert_close

NAN = float("nan")
# Tensors that stay on the host, whatever the device.
ON_THE_HOST = {"starts", "lengths"}


class Registered(Tensor):
    """A tensor that the ops take through the dispatcher, as torch.compile and torch.export do."""


@dataclass(frozen=True)
class Problem:
    """A call of an op: the tensors it is differentiated in, and its other arguments."""

    op: Callable[..., Any]
    leaves: dict[str, Tensor]
    others: dict[str, Any]

    def outputs(self) -> list[Tensor]:
        """The results."""
        results = self.op(**self.leaves, **self.others)
        return [results] if isinstance(results, Tensor) else list(results)

    def tensors(self) -> dict[str, Tensor]:
        """All arguments that are tensors."""
        others = {k: value for k, value in self.others.items() if isinstance(value, Tensor)}
        return self.leaves | others

    def changed(self, change: Callable[[Tensor], Tensor]) -> Problem:
        """The same with other leaves."""
        return replace(self, leaves={k: change(leaf) for k, leaf in self.leaves.items()})

    def put(self, **arguments: Any) -> Problem:
        """The same with other arguments."""
        leaves = {k: arguments.get(k, value) for k, value in self.leaves.items()}
        others = {k: v for k, v in (self.others | arguments).items() if k not in leaves}
        return replace(self, leaves=leaves, others=others)

    def to(self, device: torch.device | str) -> Problem:
        """The same on a device."""
        moved = {k: v.to(device) for k, v in self.tensors().items() if k not in ON_THE_HOST}
        return self.put(**moved)

    def registered(self) -> Problem:
        """The same by way of the registered op."""
        return self.changed(lambda leaf: leaf.as_subclass(Registered))

    def differentiable(self) -> Problem:
        """The same with leaves of its own that require a gradient, in the strides they have."""
        return self.changed(lambda leaf: leaf.detach().requires_grad_())


def solve(problem: Problem, seeds: list[Tensor] | None = None) -> list[Tensor]:
    """The results, then the gradients of their product with `seeds` (ones), on the CPU."""
    problem = problem.differentiable()
    outputs = problem.outputs()
    grads: tuple[Tensor | None, ...] = ()
    if any(out.requires_grad for out in outputs):
        seeds = [torch.ones_like(out) for out in outputs] if seeds is None else seeds
        pairs = zip(seeds, outputs, strict=True)
        grads = torch.autograd.grad(
            outputs,
            list(problem.leaves.values()),
            [seed.to(out) for seed, out in pairs],
            allow_unused=True,
        )
    found = [*outputs, *(grad for grad in grads if grad is not None)]
    return [result.detach().as_subclass(Tensor).cpu() for result in found]


def exact(problem: Problem, seeds: list[Tensor] | None = None) -> list[Tensor]:
    """The same by the reference in float64."""
    with fastmtl.use_backend("reference"):
        return solve(problem.to("cpu").changed(Tensor.double), seeds)


def closed_form(problem: Problem, seeds: list[Tensor] | None = None) -> list[Tensor]:
    """The same by the reference's explicit gradients, which the registered op goes by."""
    with fastmtl.use_backend("reference"):
        return solve(problem.registered(), seeds)


def seeds_for(problem: Problem) -> list[Tensor]:
    """Random factors for the results."""
    with torch.no_grad(), fastmtl.use_backend("reference"):
        return [torch.randn(out.shape).double() for out in problem.to("cpu").outputs()]


def check(
    problem: Problem, scale: float = 1, dtype: torch.dtype | None = None
) -> tuple[torch.dtype, ...]:
    """Compare results and gradients with float64, at the tolerance of their dtype or of `dtype`;
    the dtypes of the results."""
    seeds = seeds_for(problem)
    actual, wanted = solve(problem, seeds), exact(problem, seeds)
    for one, other in zip(actual, wanted, strict=True):
        assert_close(one, other, dtype, scale)
    return tuple(result.dtype for result in actual[: len(seeds)])


def focal_loss_problem(
    rows: int,
    tasks: int,
    dtype: torch.dtype = torch.float32,
    labels: torch.dtype = torch.float32,
    **options: Any,
) -> Problem:
    """Labels are missing by a mask and, where their dtype has it, by NaN; so are all of a task."""
    targets = (torch.rand(rows, tasks) > 0.6).to(labels)
    if labels.is_floating_point:
        targets[torch.rand(rows, tasks) > 0.9] = NAN
        if tasks > 2:
            targets[:, 1] = NAN
    others = {
        "targets": targets,
        "mask": torch.rand(rows, tasks) > 0.1,
        "pos_weight": torch.rand(tasks, dtype=torch.float64) + 0.5,
    }
    logits = 4 * torch.randn(rows, tasks, dtype=torch.float64)
    return Problem(focal_loss, {"logits": logits.to(dtype)}, others | options)


def multilabel_loss_problem(
    rows: int,
    tasks: int,
    dtype: torch.dtype = torch.float32,
    labels: torch.dtype = torch.float32,
    soft: bool = True,
    by_task: bool = True,
    weigh: torch.dtype | None = torch.float32,
    **options: Any,
) -> Problem:
    """Labels are missing by weights of 0 and, where their dtype has it, by NaN; so are all of a
    task. With `soft` a third of the others lies between 0 and 1; with `by_task` every number that a
    task can have is its own."""
    targets = (torch.rand(rows, tasks) > 0.6).to(labels)
    if labels.is_floating_point:
        if soft:
            targets = torch.where(torch.rand(rows, tasks) > 0.7, torch.rand(rows, tasks), targets)
        targets = targets.to(labels)
        targets[torch.rand(rows, tasks) > 0.9] = NAN
        if tasks > 2:
            targets[:, 1] = NAN
    others: dict[str, Any] = {"targets": targets}
    if weigh is not None:
        weight = (torch.rand(rows, tasks) + 0.5) * (torch.rand(rows, tasks) > 0.1)
        others["weight"] = weight.to(weigh)
    if by_task:
        numbers = ("gamma_pos", "gamma_neg", "pos_weight", "neg_weight", "shift")
        others |= {name: 3 * torch.rand(tasks, dtype=torch.float64) for name in numbers}
    logits = 4 * torch.randn(rows, tasks, dtype=torch.float64)
    return Problem(multilabel_loss, {"logits": logits.to(dtype)}, others | options)


def grouped_focal_loss_problem(
    rows: int, sizes: list[int], dtype: torch.dtype = torch.float32, **options: Any
) -> Problem:
    """Some labels are missing, and all of the second group."""
    targets = torch.stack([torch.randint(size, (rows,)) for size in sizes], 1)
    targets[torch.rand(rows, len(sizes)) > 0.85] = -100
    targets[:, 1:2] = -100
    others = {
        "targets": targets,
        "group_sizes": sizes,
        "weight": torch.rand(sum(sizes), dtype=torch.float64) + 0.5,
    }
    logits = 3 * torch.randn(rows, sum(sizes), dtype=torch.float64)
    return Problem(grouped_focal_loss, {"logits": logits.to(dtype)}, others | options)


def stacked_norms_problem(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Problem:
    parts = {f"stacked[{i}]": torch.randn(shape).to(dtype) for i, shape in enumerate(shapes)}
    return Problem(lambda **parts: stacked_norms(list(parts.values())), parts, {})


def task_grads_problem(
    op: Callable[..., Tensor],
    sizes: tuple[int, int, int, int],
    dtype: torch.dtype = torch.float32,
    shared: bool = True,
) -> Problem:
    """`sizes` are T, N, I, O; the tasks share their inputs or have their own, and the second one's
    gradient is 0."""
    tasks, samples, features, outputs = sizes
    x = torch.randn((samples, features) if shared else (tasks, samples, features))
    d = torch.randn(tasks, samples, outputs)
    if tasks > 1:
        d[1] = 0
    return Problem(op, {"inputs": x.to(dtype), "grad_outputs": d.to(dtype)}, {})


def graph_fusion_problem(
    op: Callable[..., Any],
    sizes: tuple[int, int, int, int],
    dtype: torch.dtype = torch.float32,
    theta: float = 0.4,
) -> Problem:
    """`sizes` are B, P, D, D'; every pair of vertices has an edge."""
    batch, count, features, width = sizes
    edges = list(combinations(range(count), 2))
    leaves = {
        "vertices": torch.randn(batch, count, features),
        "importance": torch.randn(batch, count),
    }
    if op is graph_fusion:
        leaves["edge_vertices"] = torch.randn(batch, len(edges), width)
    problem = Problem(op, leaves, {"edges": edges, "theta": theta})
    return problem.changed(lambda leaf: leaf.to(dtype))


def task_gru_problem(
    tasks: int,
    directions: int,
    hidden: int,
    lengths: list[int],
    dtype: torch.dtype = torch.float32,
    inputs: int = 5,
    shared: bool = True,
    gap: int = 2,
    **options: Any,
) -> Problem:
    """`gap` rows before each sequence belong to none of them."""
    count = torch.tensor(lengths, dtype=torch.int64)
    ends = (count + gap).cumsum(0)
    rows = int(ends[-1]) if lengths else 0
    shape, bound = (tasks, directions, 3 * hidden), hidden**-0.5
    tails: dict[str, tuple[int, ...]] = {
        "weight_ih": (inputs,),
        "weight_hh": (hidden,),
        "bias_ih": (),
        "bias_hh": (),
    }
    leaves = {"x": torch.randn((rows, inputs) if shared else (tasks, rows, inputs))} | {
        name: torch.empty(*shape, *tail).uniform_(-bound, bound) for name, tail in tails.items()
    }
    others = {"starts": ends - count, "lengths": count} | options
    return Problem(task_gru_layer, leaves, others).changed(lambda leaf: leaf.to(dtype))


def least_norm_problem(
    tasks: int, dtype: torch.dtype = torch.float32, iterations: int = 5
) -> Problem:
    grads = torch.randn(tasks, 400, dtype=torch.float64) + 0.3
    gramian = (grads @ grads.T).to(dtype)
    return Problem(least_norm_weights, {"gramian": gramian}, {"iterations": iterations})


def nonnegative_qp_problem(
    tasks: int, problems: int, dtype: torch.dtype = torch.float32
) -> Problem:
    grads = torch.randn(tasks, 40, dtype=torch.float64) + 0.1
    matrix = grads @ grads.T + torch.eye(tasks, dtype=torch.float64)
    linear = 5 * torch.randn(problems, tasks, dtype=torch.float64)
    leaves = {"matrix": matrix.to(dtype), "linear": linear.to(dtype)}
    return Problem(nonnegative_qp, leaves, {})


def pcgrad_problem(tasks: int, dtype: torch.dtype = torch.float32) -> Problem:
    grads = torch.randn(tasks, 40, dtype=torch.float64)
    order = torch.rand(tasks, tasks).argsort(1)
    return Problem(pcgrad_weights, {"gramian": (grads @ grads.T).to(dtype)}, {"order": order})


def gradvac_problem(tasks: int, dtype: torch.dtype = torch.float32, beta: float = 0.1) -> Problem:
    problem = pcgrad_problem(tasks, dtype)
    phihat = 0.5 * torch.rand(tasks, tasks, dtype=torch.float64) - 0.1
    leaves = {"gramian": problem.leaves["gramian"], "phihat": phihat.to(dtype)}
    others = {**problem.others, "beta": beta, "rounding": 1e-6}
    return Problem(gradvac_weights, leaves, others)


RAGGED = [3, 6, 1, 4]
# An entry an op, or more where it takes ways of its own; each makes its problem in a dtype.
PROBLEMS: dict[str, Callable[[torch.dtype], Problem]] = {
    "focal_loss": partial(focal_loss_problem, 60, 9),
    "focal_loss-none": partial(focal_loss_problem, 60, 9, reduction="none"),
    "multilabel_loss": partial(
        multilabel_loss_problem, 60, 9, clip=0.1, poly=0.7, smoothing=0.1, neg_scale=1.5
    ),
    "multilabel_loss-asymmetric": partial(
        multilabel_loss_problem,
        *(60, 9),
        soft=False,
        by_task=False,
        gamma_pos=1,
        gamma_neg=4,
        clip=0.05,
        reduction="none",
    ),
    "grouped_focal_loss": partial(grouped_focal_loss_problem, 70, [2, 5, 3]),
    "stacked_norms": lambda dtype: stacked_norms_problem((5, 3, 40), (5,), (5, 9), dtype=dtype),
    "task_grad_norms": partial(task_grads_problem, task_grad_norms, (5, 20, 12, 6)),
    "task_grad_norms-own": partial(
        task_grads_problem, task_grad_norms, (3, 5, 30, 16), shared=False
    ),
    "task_grad_gramian": partial(task_grads_problem, task_grad_gramian, (3, 5, 30, 16)),
    "task_grad_gramian-own": partial(
        task_grads_problem, task_grad_gramian, (5, 20, 12, 6), shared=False
    ),
    "fusion_edge_weights": partial(graph_fusion_problem, fusion_edge_weights, (4, 3, 10, 0)),
    "graph_fusion": partial(graph_fusion_problem, graph_fusion, (6, 4, 10, 4)),
    "task_gru_layer": partial(task_gru_problem, 3, 2, 4, RAGGED),
    "task_gru_layer-own-recomputed": partial(
        task_gru_problem, 3, 2, 4, RAGGED, shared=False, recompute=True
    ),
    "least_norm_weights": lambda dtype: least_norm_problem(7, _single_or_double(dtype)),
    "nonnegative_qp": lambda dtype: nonnegative_qp_problem(6, 4, _single_or_double(dtype)),
    "pcgrad_weights": lambda dtype: pcgrad_problem(6, _single_or_double(dtype)),
    "gradvac_weights": lambda dtype: gradvac_problem(6, _single_or_double(dtype)),
}
NOT_DIFFERENTIABLE = frozenset(
    {"least_norm_weights", "nonnegative_qp", "pcgrad_weights", "gradvac_weights"}
)
# Ops that Triton has no kernel for.
CUDA_ALONE = {"task_gru_layer", "nonnegative_qp", "pcgrad_weights", "gradvac_weights"}


def _single_or_double(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype in (torch.float32, torch.float64) else torch.float32
