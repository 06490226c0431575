"""The GPU kernels against float64, forward and backward, wherever they can run."""

from __future__ import annotations

import pytest
import torch

import fastmtl
from fastmtl.backends.native import task_gru_cuda
from fastmtl.ops import least_norm_weights
from tests.gpu.problems import (
    Problem,
    focal_problem,
    fusion_problem,
    grads_problem,
    grouped_problem,
    gru_problem,
    norms_problem,
    reference,
    seeds_for,
    solve,
)
from tests.tolerances import assert_close

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def check(problem: Problem, device: torch.device, dtype: torch.dtype, scale: float = 1) -> None:
    seeds = seeds_for(problem)
    actual, wanted = solve(problem, device, seeds), reference(problem, seeds)
    for one, other in zip(actual, wanted, strict=True):
        assert_close(one, other, dtype, scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(20, 7), (1, 1), (33, 1), (257, 13), (3, 700), (3, 3001), (2500, 8), (0, 4)]
)
def test_focal_loss(device: torch.device, shape: tuple[int, int], dtype: torch.dtype) -> None:
    check(focal_problem(*shape, dtype), device, dtype)


@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
@pytest.mark.parametrize("shape", [(20, 7), (900, 12), (3, 1201)])
def test_reductions(device: torch.device, shape: tuple[int, int], reduction: str) -> None:
    check(focal_problem(*shape, torch.float32, reduction=reduction), device, torch.float32)


@pytest.mark.parametrize("gamma", [0, 1, 0.5, 3.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gamma(device: torch.device, gamma: float, dtype: torch.dtype) -> None:
    check(focal_problem(40, 5, dtype, gamma=gamma), device, dtype)


@pytest.mark.parametrize(
    "labels", [torch.bool, torch.uint8, torch.int32, torch.int64, torch.bfloat16, torch.float64]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_labels(device: torch.device, labels: torch.dtype, dtype: torch.dtype) -> None:
    check(focal_problem(60, 12, dtype, labels), device, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_logits(device: torch.device, dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max / 16
    row = torch.tensor([largest, 1e4, 200, 88.5, 17, 1e-3, 0, 1e-30], dtype=torch.float64)
    logits = torch.cat([row, -row]).clamp(-largest, largest)[:, None].expand(-1, 2).to(dtype)
    function, _, (_, mask, weight) = focal_problem(16, 2, dtype, reduction="none")
    targets = torch.tensor([[0.0, 1.0]]).expand(16, 2).clone()
    problem = function, [logits.clone()], [targets, mask | True, weight]
    for one, other in zip(solve(problem, device), reference(problem), strict=True):
        assert one.isfinite().all()
        error = (one.double() - other).abs()
        assert (error <= 2e-2 * other.abs() + 4 * torch.finfo(one.dtype).smallest_normal).all()


def test_not_a_number_shows(device: torch.device) -> None:
    logits = torch.tensor([[float("nan"), 1.0, 0.0], [0.0, float("nan"), 0.0]])
    targets = torch.tensor([[1.0, 0.0, 2.0], [0.0, float("nan"), 1.0]])
    function, _, (_, _, weight) = focal_problem(2, 3, torch.float32)
    problem = function, [logits], [targets, torch.ones(2, 3, dtype=torch.bool), weight]
    loss, slope = solve(problem, device)
    assert loss.isnan().tolist() == [True, False, True]
    assert slope.isnan().tolist() == [[True, False, True], [False, False, False]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("begin", [1, 8])
def test_addresses_and_strides(device: torch.device, dtype: torch.dtype, begin: int) -> None:
    function, leaves, constants = focal_problem(50, 12, dtype)
    memory = torch.empty(begin + leaves[0].numel(), dtype=dtype, device=device)
    offset = memory[begin:].view(50, 12).copy_(leaves[0]).requires_grad_()
    strided = torch.stack([leaves[0].T, leaves[0].T], 2).to(device)[:, :, 1].T.requires_grad_()
    loss, slope = reference((function, leaves, constants))
    for logits in (offset, strided):
        (actual,) = function([logits], [constant.to(device) for constant in constants])
        (grad,) = torch.autograd.grad(actual.sum(), logits)
        assert_close(actual.detach().cpu(), loss, dtype)
        assert_close(grad.cpu(), slope, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 20, 133])
@pytest.mark.parametrize(
    "sizes", [[2, 5, 3], [30, 2], [2, 2, 700], [61, 67], [301, 259], [256, 256]]
)
def test_grouped_focal_loss(
    device: torch.device, rows: int, sizes: list[int], dtype: torch.dtype
) -> None:
    check(grouped_problem(rows, sizes, dtype), device, dtype)


@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
@pytest.mark.parametrize("gamma", [0, 2.5])
def test_grouped_reductions(device: torch.device, reduction: str, gamma: float) -> None:
    problem = grouped_problem(150, [2, 9, 4], torch.float32, reduction=reduction, gamma=gamma)
    check(problem, device, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7, 3, 5), (3, 20_001), (20, 33), (4, 1)])
def test_stacked_norms(device: torch.device, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    check(norms_problem(shape, dtype), device, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(7, 20, 33, 12), (3, 90, 5, 4), (1, 1, 1, 1)])
def test_task_grads(
    device: torch.device, sizes: tuple[int, int, int, int], dtype: torch.dtype
) -> None:
    check(grads_problem(*sizes, dtype), device, dtype, scale=4)


# Vertices of a warp's, of a block's, and of more than shared memory.
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "sizes",
    [
        (5, 3, 16, 8),
        (1, 2, 1, 1),
        (9, 6, 33, 65),
        (2, 12, 70, 5),
        (2, 5, 1100, 40),
        (1, 9, 3700, 8),
    ],
)
def test_graph_fusion(
    device: torch.device, sizes: tuple[int, int, int, int], dtype: torch.dtype
) -> None:
    # Cosines near 1 differ by little, and their gradients cancel.
    check(fusion_problem(*sizes, dtype), device, dtype, scale=2)


# Triton has no kernel for it.
cuda_alone = pytest.mark.parametrize("device", ["cuda"], indirect=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize(
    "sizes",
    [
        (1, 1, 1, [1]),
        (3, 2, 4, [3, 6, 1, 4]),
        (1, 1, 20, [1] * 5),
        (2, 2, 65, [3, 3, 2]),
        (1, 2, 37, [4] * 13 + [2] * 12),
        (2, 1, 128, [1, 2, 3, 2]),
        (1, 1, 150, [3, 2]),
        (1, 2, 200, [1, 3, 2]),
    ],
    ids=lambda sizes: "-".join(map(str, sizes[:3])),
)
@cuda_alone
def test_task_gru(
    device: torch.device, sizes: tuple[int, int, int, list[int]], shared: bool, dtype: torch.dtype
) -> None:
    check(gru_problem(*sizes, dtype, shared=shared), device, dtype)


@cuda_alone
def test_task_gru_whose_sequences_cover_all_rows(device: torch.device) -> None:
    check(gru_problem(2, 2, 5, [3, 1, 2], torch.float64, gap=0), device, torch.float64)


# Blocks of one to four sequences, in a launch and in several.
@pytest.mark.parametrize("hidden", [7, 50, 96])
@pytest.mark.parametrize("batch", [1, 6, 9, 12, 450])
@cuda_alone
def test_task_gru_tiles(device: torch.device, batch: int, hidden: int) -> None:
    problem = gru_problem(1, 2, hidden, [1 + i % 3 for i in range(batch)], torch.float32)
    check(problem, device, torch.float32)


@cuda_alone
def test_task_gru_by_steps(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    problems = [
        gru_problem(2, 2, 5, [1 + i % 3 for i in range(450)], dtype, shared=shared)
        for dtype in (torch.float32, torch.float64)
        for shared in (True, False)
    ]
    monkeypatch.setattr(task_gru_cuda, "in_one_launch", lambda weight: False)
    for problem in problems:
        check(problem, device, problem[1][0].dtype)


@cuda_alone
def test_task_gru_at_the_papers_size(device: torch.device) -> None:
    problem = gru_problem(7, 2, 128, [3] * 18 + [2, 1], torch.float32)
    check(problem, device, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("tasks", "iterations"), [(1, 1), (2, 1), (7, 5), (40, 5), (300, 2)])
def test_least_norm(device: torch.device, tasks: int, iterations: int, dtype: torch.dtype) -> None:
    grads = torch.randn(tasks, 400, dtype=torch.float64) + 0.3
    gramian = (grads @ grads.T).to(dtype)
    weights = least_norm_weights(gramian.to(device), iterations).cpu()
    with fastmtl.use_backend("reference"):
        assert_close(weights, least_norm_weights(gramian.double(), iterations), dtype)


def test_same_bits_every_time(device: torch.device) -> None:
    for problem in (
        focal_problem(3000, 7, torch.float32),
        grouped_problem(900, [3, 4], torch.float32),
        norms_problem((3, 20_000), torch.float32),
        fusion_problem(9, 5, 64, 16, torch.float32),
    ):
        first, second = solve(problem, device), solve(problem, device)
        for one, other in zip(first, second, strict=True):
            assert torch.equal(one, other) or one.isnan().any()


@pytest.mark.parametrize("hidden", [40, 200])
@cuda_alone
def test_task_gru_same_bits_every_time(device: torch.device, hidden: int) -> None:
    problem = gru_problem(2, 2, hidden, [3, 1, 2, 3, 3], torch.float32)
    for one, other in zip(solve(problem, device), solve(problem, device), strict=True):
        assert torch.equal(one, other)


@cuda_alone
def test_task_gru_gradcheck(device: torch.device) -> None:
    function, leaves, _ = gru_problem(2, 2, 2, [3, 1], torch.float64)
    torch.autograd.gradcheck(
        lambda *inputs: tuple(function(list(inputs), [])),
        [leaf.to(device).requires_grad_() for leaf in leaves],
    )


@pytest.mark.parametrize(
    "problem",
    [
        focal_problem(5, 3, torch.float64, gamma=2.5),
        grouped_problem(4, [2, 3], torch.float64),
        fusion_problem(1, 3, 4, 2, torch.float64),
    ],
    ids=["focal", "grouped", "fusion"],
)
def test_gradcheck(device: torch.device, problem: Problem) -> None:
    function, leaves, constants = problem
    constants = [constant.to(device) for constant in constants]
    torch.autograd.gradcheck(
        lambda *inputs: tuple(function(list(inputs), constants)),
        [leaf.to(device).requires_grad_() for leaf in leaves],
    )
