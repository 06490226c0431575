"""The GPU kernels against float64, forward and backward, wherever they can run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastmtl.backends.native import task_gru_cuda
from fastmtl.ops import (
    focal_loss,
    fusion_edge_weights,
    graph_fusion,
    multilabel_loss,
    task_grad_gramian,
    task_grad_norms,
)
from tests.axes import one_at_a_time
from tests.problems import (
    CUDA_ALONE,
    PROBLEMS,
    Problem,
    check,
    exact,
    focal_loss_problem,
    gradvac_problem,
    graph_fusion_problem,
    grouped_focal_loss_problem,
    least_norm_problem,
    multilabel_loss_problem,
    nonnegative_qp_problem,
    pcgrad_problem,
    solve,
    stacked_norms_problem,
    task_grads_problem,
    task_gru_problem,
)
from tests.tolerances import assert_close
from tests.views import VIEWS

F64 = torch.float64
NARROW = [torch.bfloat16, torch.float16]
DTYPES = [F64, *NARROW]
ALL_DTYPES = [torch.float32, *DTYPES]

FOCAL = one_at_a_time(
    {"shape": (257, 13), "dtype": torch.float32},
    {
        "shape": [(20, 7), (1, 1), (33, 1), (3, 700), (3, 3001), (2500, 8), (900, 12), (0, 4)],
        "dtype": DTYPES,
        "reduction": ["sum", "mean", "none"],
        "gamma": [0, 1, 0.5, 3.7],
        "labels": [torch.bool, torch.uint8, torch.int32, torch.int64, torch.bfloat16, F64],
    },
    # Rows in parts, and accesses of several elements.
    *({"shape": (3, 3001), "dtype": dtype} for dtype in DTYPES),
    *({"shape": (2500, 8), "dtype": dtype} for dtype in DTYPES),
    *({"shape": (3, 1201), "reduction": reduction} for reduction in ("sum", "mean", "none")),
    *({"shape": (900, 12), "reduction": reduction} for reduction in ("sum", "mean", "none")),
    *({"dtype": F64, "gamma": gamma} for gamma in (0, 1, 3.7)),
    *(
        {"shape": (60, 12), "dtype": torch.bfloat16, "labels": labels}
        for labels in (torch.bool, torch.int64, torch.bfloat16)
    ),
)


@pytest.mark.parametrize("case", FOCAL)
def test_focal_loss(device: torch.device, case: dict[str, Any]) -> None:
    options = dict(case)
    problem = focal_loss_problem(*options.pop("shape"), **options)
    check(problem.to(device), dtype=case["dtype"])


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_focal_loss_of_halves_is_exact_for_each_element(
    device: torch.device, gamma: float, dtype: torch.dtype
) -> None:
    """Of small losses too: an error of half a rounding to float16, not of the largest loss."""
    z = torch.linspace(-60, 60, 4000).view(-1, 8).to(dtype)
    y = torch.arange(z.numel()).view_as(z) % 2
    loss = focal_loss(z.to(device), y.to(device, dtype), gamma=gamma, reduction="none")
    x = z.double() * (2 * y - 1)
    wanted = torch.sigmoid(-x) ** gamma * torch.nn.functional.softplus(-x)
    torch.testing.assert_close(loss.cpu().double(), wanted, rtol=2**-12, atol=1e-36)


MULTILABEL = one_at_a_time(
    {"shape": (257, 13), "dtype": torch.float32, "clip": 0.1, "poly": 0.7, "smoothing": 0.1},
    {
        "shape": [(20, 7), (1, 1), (3, 3001), (2500, 8), (900, 12), (0, 4)],
        "dtype": DTYPES,
        "reduction": ["sum", "mean", "none"],
        "labels": [torch.bool, torch.int64, torch.bfloat16, F64],
        "weigh": [None, torch.bool, torch.bfloat16],
        "clip": [0.0, 1e-3],
        "smoothing": [0.0],
        "neg_scale": [2.0],
        "detach_focus": [True],
    },
    # Powers that are whole, which have a loop of their own, on accesses of several elements too.
    *(
        {"by_task": False, "gamma_pos": pos, "gamma_neg": neg, "soft": False, "smoothing": 0.0}
        | {"clip": clip, "dtype": dtype, "shape": (60, 16)}
        for pos, neg, clip in ((1, 4, 0.05), (0, 3, 0), (2, 2, 0), (0.5, 4, 0.05), (1.5, 2.5, 0))
        for dtype in (torch.float32, torch.bfloat16)
    ),
    {"by_task": False, "gamma_pos": 1, "gamma_neg": 4, "dtype": F64},
    {"dtype": F64, "detach_focus": True, "clip": 0.0},
)


@pytest.mark.parametrize("case", MULTILABEL)
def test_multilabel_loss(device: torch.device, case: dict[str, Any]) -> None:
    options = dict(case)
    problem = multilabel_loss_problem(*options.pop("shape"), **options)
    check(problem.to(device), dtype=case["dtype"])


@pytest.mark.parametrize("dtype", ALL_DTYPES)
def test_extreme_logits(device: torch.device, dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max / 16
    row = torch.tensor([largest, 1e4, 200, 88.5, 17, 1e-3, 0, 1e-30], dtype=F64)
    logits = torch.cat([row, -row]).clamp(-largest, largest)[:, None].expand(-1, 2).to(dtype)
    others = {"targets": torch.tensor([[0.0, 1.0]]).expand(16, 2).clone(), "reduction": "none"}
    problem = Problem(focal_loss, {"logits": logits.clone()}, others).to(device)
    for one, other in zip(solve(problem), exact(problem), strict=True):
        assert one.isfinite().all()
        error = (one.double() - other).abs()
        assert (error <= 2e-2 * other.abs() + 4 * torch.finfo(one.dtype).smallest_normal).all()


def test_not_a_number_shows(device: torch.device) -> None:
    logits = torch.tensor([[float("nan"), 1.0, 0.0], [0.0, float("nan"), 0.0]])
    targets = torch.tensor([[1.0, 0.0, 2.0], [0.0, float("nan"), 1.0]])
    loss, slope = solve(Problem(focal_loss, {"logits": logits}, {"targets": targets}).to(device))
    assert loss.isnan().tolist() == [True, False, True]
    assert slope.isnan().tolist() == [[True, False, True], [False, False, False]]


@pytest.mark.parametrize("dtype", ALL_DTYPES)
def test_aligned_addresses_within_a_tensor(device: torch.device, dtype: torch.dtype) -> None:
    problem = focal_loss_problem(50, 12, dtype).to(device)
    logits = problem.leaves["logits"]
    memory = torch.empty(8 + logits.numel(), dtype=dtype, device=device)
    offset = problem.put(logits=memory[8:].view(50, 12).copy_(logits))
    for one, other in zip(solve(offset), exact(problem), strict=True):
        assert_close(one, other, dtype)


@pytest.mark.parametrize(
    ("view", "dtype"),
    [
        ("transposed", torch.float32),
        ("interleaved", F64),
        ("padded", torch.bfloat16),
        ("offset", torch.float16),
        ("offset", torch.float32),
    ],
)
@pytest.mark.parametrize(
    "name", [name for name in PROBLEMS if name.split("-")[0] not in CUDA_ALONE]
)
def test_addresses_and_strides(
    device: torch.device, name: str, view: str, dtype: torch.dtype
) -> None:
    problem = PROBLEMS[name](dtype).to(device)
    strided = problem.put(**{k: VIEWS[view](v) for k, v in problem.tensors().items()})
    for one, other in zip(solve(strided), solve(problem), strict=True):
        assert_close(one, other.double(), one.dtype)


def spread(values: Tensor, dim: int, path: Path) -> Tensor:
    """A matrix with rows or columns 2^30 elements apart, of which little is ever touched: in memory
    of a device, or in a file with holes on the host."""
    strides = [1, 1]
    strides[dim] = 1 << 30
    size = (1 << 30) * (values.shape[dim] - 1) + values.shape[1 - dim]
    if values.is_cuda:
        memory = torch.empty(size, dtype=values.dtype, device=values.device)
    else:
        memory = torch.from_file(str(path), shared=True, size=size, dtype=values.dtype)
    return memory.as_strided(values.shape, strides).copy_(values)


@pytest.mark.parametrize("dim", [0, 1], ids=["rows", "columns"])
@pytest.mark.parametrize("argument", ["logits", "targets", "mask"])
@pytest.mark.parametrize("name", ["focal_loss", "grouped_focal_loss"])
def test_offsets_beyond_32_bits(
    device: torch.device,
    name: str,
    argument: str,
    dim: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if name == "focal_loss":
        problem = focal_loss_problem(4, 4, torch.bfloat16, labels=torch.uint8)
    elif argument == "mask":
        pytest.skip("there is none")
    else:
        problem = grouped_focal_loss_problem(4, [2] * 4, torch.bfloat16)
    if device.type == "cuda" and torch.cuda.mem_get_info()[0] < 32 << 30:
        pytest.skip("needs 32 GiB of free device memory")
    # Filling all of it would take long.
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)
    problem = problem.to(device)
    far = spread(problem.tensors()[argument], dim, tmp_path / "memory")
    for one, other in zip(solve(problem.put(**{argument: far})), exact(problem), strict=True):
        assert_close(one, other, torch.bfloat16)


GROUPED = one_at_a_time(
    {"rows": 133, "sizes": [2, 9, 4], "dtype": torch.float32},
    {
        "rows": [1, 20],
        "sizes": [[30, 2], [61, 67]],
        "dtype": DTYPES,
        "reduction": ["sum", "mean", "none"],
        "gamma": [0, 2.5],
    },
    # A warp's classes, a block's, and more.
    *({"sizes": [61, 67], "dtype": dtype} for dtype in DTYPES),
    {"rows": 20, "sizes": [256, 256]},
    *({"rows": 20, "sizes": [301, 259], "dtype": dtype} for dtype in ALL_DTYPES),
    *({"rows": 5, "sizes": [2, 2, 700], "dtype": dtype} for dtype in ALL_DTYPES),
    *({"gamma": 0, "reduction": reduction} for reduction in ("sum", "none")),
)


@pytest.mark.parametrize("case", GROUPED)
def test_grouped_focal_loss(device: torch.device, case: dict[str, Any]) -> None:
    check(grouped_focal_loss_problem(**case).to(device), dtype=case["dtype"])


NORMS = one_at_a_time(
    {"shape": (3, 20_001), "dtype": torch.float32},
    {"shape": [(7, 3, 5), (20, 33), (4, 1)], "dtype": DTYPES},
    {"shape": (20, 33), "dtype": torch.bfloat16},
)


@pytest.mark.parametrize("case", NORMS)
def test_stacked_norms(device: torch.device, case: dict[str, Any]) -> None:
    shape, dtype = case["shape"], case["dtype"]
    check(stacked_norms_problem(shape, (shape[0], 3), dtype=dtype).to(device), dtype=dtype)


GRADS = one_at_a_time(
    {"sizes": (7, 20, 33, 12), "dtype": torch.float32, "shared": True},
    {"sizes": [(3, 90, 5, 4), (1, 1, 1, 1)], "dtype": DTYPES, "shared": [False]},
    *({"sizes": (3, 90, 5, 4), "dtype": dtype} for dtype in DTYPES),
)


@pytest.mark.parametrize("case", GRADS)
@pytest.mark.parametrize("op", [task_grad_norms, task_grad_gramian])
def test_task_grads(device: torch.device, op: Any, case: dict[str, Any]) -> None:
    check(task_grads_problem(op, **case).to(device), dtype=case["dtype"], scale=4)


FUSION = one_at_a_time(
    {"op": graph_fusion, "sizes": (9, 6, 33, 65), "dtype": torch.float32},
    {
        "op": [fusion_edge_weights],
        # Vertices of a warp's, of a block's, and of more than shared memory.
        "sizes": [(5, 3, 16, 8), (1, 2, 1, 1), (2, 12, 70, 5), (2, 5, 1100, 40), (1, 9, 3700, 8)],
        "dtype": DTYPES,
    },
    *({"sizes": (2, 5, 1100, 40), "dtype": dtype} for dtype in DTYPES),
    *({"sizes": (1, 9, 3700, 8), "dtype": dtype} for dtype in (F64, torch.bfloat16)),
    *(
        {"op": fusion_edge_weights, "sizes": sizes, "dtype": dtype}
        for sizes, dtype in [
            ((5, 3, 16, 8), torch.float16),
            ((2, 5, 1100, 40), torch.bfloat16),
            ((1, 9, 3700, 8), torch.float32),
            # One that is not copied ahead.
            ((2, 9, 1100, 4), torch.float32),
        ]
    ),
)


@pytest.mark.parametrize("case", FUSION)
def test_graph_fusion(device: torch.device, case: dict[str, Any]) -> None:
    # Cosines near 1 differ by little, and their gradients cancel.
    check(graph_fusion_problem(**case).to(device), dtype=case["dtype"], scale=2)


# Triton has no kernel for it.
cuda_alone = pytest.mark.parametrize("device", ["cuda"], indirect=True)

GRU = one_at_a_time(
    {"sizes": (1, 2, 37, [4] * 13 + [2] * 12), "dtype": torch.float32, "shared": True},
    {
        "sizes": [
            (1, 1, 1, [1]),
            (3, 2, 4, [3, 6, 1, 4]),
            (1, 1, 20, [1] * 5),
            (2, 2, 65, [3, 3, 2]),
            (2, 1, 128, [1, 2, 3, 2]),
            (1, 1, 150, [3, 2]),
            (1, 2, 200, [1, 3, 2]),
        ],
        "dtype": DTYPES,
        "shared": [False],
    },
    # Weights that a block cannot keep.
    *({"sizes": (1, 2, 200, [1, 3, 2]), "dtype": dtype} for dtype in DTYPES),
    {"sizes": (2, 1, 128, [1, 2, 3, 2]), "dtype": F64},
    {"sizes": (3, 2, 4, [3, 6, 1, 4]), "shared": False},
    {"sizes": (2, 2, 65, [3, 3, 2]), "shared": False, "dtype": torch.bfloat16},
    {"sizes": (1, 2, 200, [1, 3, 2]), "shared": False},
    # Sequences that cover all rows.
    {"sizes": (2, 2, 5, [3, 1, 2]), "dtype": F64, "gap": 0},
)


@pytest.mark.parametrize(
    ("sizes", "dtype"),
    [
        ((390, 2, 8, 4), torch.float32),
        ((390, 2, 8, 4), torch.bfloat16),
        ((98, 3, 800, 4), torch.float32),
    ],
)
@cuda_alone
def test_graph_fusion_of_several_samples_a_block(
    device: torch.device, sizes: tuple[int, int, int, int], dtype: torch.dtype
) -> None:
    """Of the Triton kernel every program has one."""
    check(graph_fusion_problem(fusion_edge_weights, sizes, dtype).to(device), dtype=dtype, scale=2)


@pytest.mark.parametrize("case", GRU)
@cuda_alone
def test_task_gru(device: torch.device, case: dict[str, Any]) -> None:
    options = dict(case)
    check(task_gru_problem(*options.pop("sizes"), **options).to(device), dtype=case["dtype"])


# Blocks of one to four sequences, in a launch and in several.
@pytest.mark.parametrize(
    ("hidden", "batch"),
    [(hidden, batch) for hidden in (7, 50, 96) for batch in (1, 6, 9, 12)] + [(7, 450)],
)
@cuda_alone
def test_task_gru_tiles(device: torch.device, batch: int, hidden: int) -> None:
    lengths = [1 + i % 3 for i in range(batch)]
    check(task_gru_problem(1, 2, hidden, lengths).to(device))


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
@cuda_alone
def test_task_gru_by_steps(
    device: torch.device, dtype: torch.dtype, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_gru_cuda, "in_one_launch", lambda weight: False)
    lengths = [1 + i % 3 for i in range(450)]
    check(task_gru_problem(2, 2, 5, lengths, dtype, shared=shared).to(device))


@cuda_alone
def test_task_gru_at_the_papers_size(device: torch.device) -> None:
    check(task_gru_problem(7, 2, 128, [2] * 18 + [2, 1]).to(device))


LEAST_NORM = one_at_a_time(
    {"tasks": 7, "iterations": 5, "dtype": torch.float32},
    {"tasks": [1, 2, 40], "dtype": [F64]},
    {"tasks": 40, "dtype": F64},
    *({"tasks": 300, "iterations": 2, "dtype": dtype} for dtype in (torch.float32, F64)),
)


@pytest.mark.parametrize("case", LEAST_NORM)
def test_least_norm(device: torch.device, case: dict[str, Any]) -> None:
    check(least_norm_problem(**case).to(device))


SURGERY = one_at_a_time(
    {"tasks": 7, "dtype": torch.float32}, {"tasks": [1, 2, 33, 70], "dtype": [F64]}
)


@pytest.mark.parametrize("case", SURGERY)
@pytest.mark.parametrize("problem", [pcgrad_problem, gradvac_problem])
@cuda_alone
def test_gradient_surgery(
    device: torch.device, problem: Callable[..., Problem], case: dict[str, Any]
) -> None:
    check(problem(**case).to(device))


@pytest.mark.parametrize("tasks", [1, 7, 33])
@cuda_alone
def test_nonnegative_qp(device: torch.device, tasks: int) -> None:
    check(nonnegative_qp_problem(tasks, 5, F64).to(device))


BITS = {
    "focal": lambda: focal_loss_problem(3000, 7),
    "multilabel": lambda: multilabel_loss_problem(3000, 7, clip=0.1),
    "grouped": lambda: grouped_focal_loss_problem(900, [3, 4]),
    "norms": lambda: stacked_norms_problem((3, 20_000), (3, 3)),
    "fusion": lambda: graph_fusion_problem(graph_fusion, (9, 5, 64, 16)),
}


def same_bits(problem: Problem) -> None:
    for one, other in zip(solve(problem), solve(problem), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", BITS)
def test_same_bits_every_time(device: torch.device, name: str) -> None:
    same_bits(BITS[name]().to(device))


@pytest.mark.parametrize("hidden", [40, 200])
@cuda_alone
def test_task_gru_same_bits_every_time(device: torch.device, hidden: int) -> None:
    same_bits(task_gru_problem(2, 2, hidden, [3, 1, 2, 3, 3]).to(device))


@pytest.mark.parametrize("loss", [focal_loss, multilabel_loss])
def test_weights_without_memory_are_refused(device: torch.device, loss: Any) -> None:
    logits, targets = torch.zeros(4, 2, device=device), torch.ones(4, 2, device=device)
    nothing = torch._efficientzerotensor((2,), device=device)
    with pytest.raises((ValueError, RuntimeError), match=r"with memory|doesn't have storage"):
        loss(logits, targets, pos_weight=nothing)


SMALL = {
    "focal": lambda: focal_loss_problem(5, 3, F64, gamma=2.5),
    "multilabel": lambda: multilabel_loss_problem(5, 3, F64, clip=0.1, poly=0.5),
    "grouped": lambda: grouped_focal_loss_problem(4, [2, 3], F64),
    "norms": lambda: stacked_norms_problem((2, 3), (2, 1), dtype=F64),
    "fusion": lambda: graph_fusion_problem(graph_fusion, (1, 3, 4, 2), F64),
}


def gradcheck(problem: Problem) -> None:
    problem = problem.differentiable()
    torch.autograd.gradcheck(
        lambda *leaves: problem.put(**dict(zip(problem.leaves, leaves, strict=True))).outputs(),
        tuple(problem.leaves.values()),
    )


@pytest.mark.parametrize("name", SMALL)
def test_gradcheck(device: torch.device, name: str) -> None:
    gradcheck(SMALL[name]().to(device))


@cuda_alone
def test_task_gru_gradcheck(device: torch.device) -> None:
    gradcheck(task_gru_problem(1, 2, 2, [2, 1], F64, inputs=2).to(device))
