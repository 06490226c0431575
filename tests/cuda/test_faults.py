"""What the CUDA kernels could do wrong without a wrong number: accesses beyond their memory, and
views that they take for what they are not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import fastmtl
from fastmtl.ops import focal_loss, graph_fusion
from tests.cuda import guarded, host
from tests.problems import (
    PROBLEMS,
    Problem,
    exact,
    focal_loss_problem,
    graph_fusion_problem,
    grouped_focal_loss_problem,
    multilabel_loss_problem,
    solve,
    stacked_norms_problem,
    task_gru_problem,
)
from tests.tolerances import assert_close
from tests.views import VIEWS


@pytest.fixture(autouse=True)
def _kernels(poison: None) -> Iterator[None]:
    with host.serving(), fastmtl.use_backend("native"):
        yield


F32, BF16 = torch.float32, torch.bfloat16
# Sizes of which 16 divides the bytes, for accesses of several elements, and others.
SIZES = {
    "focal-wide": lambda: focal_loss_problem(64, 8, F32),
    "focal-wide-halves": lambda: focal_loss_problem(64, 8, BF16, labels=BF16),
    "focal-integers": lambda: focal_loss_problem(64, 8, BF16, labels=torch.int32),
    "focal-bytes": lambda: focal_loss_problem(64, 8, F32, labels=torch.bool, reduction="none"),
    "focal-tail": lambda: focal_loss_problem(61, 7, F32),
    "focal-long-rows": lambda: focal_loss_problem(3, 3001, BF16),
    "multilabel-wide": lambda: multilabel_loss_problem(64, 8, BF16, labels=BF16, weigh=BF16),
    "multilabel-tail": lambda: multilabel_loss_problem(61, 7, F32, clip=0.1),
    "multilabel-long-rows": lambda: multilabel_loss_problem(3, 3001, BF16),
    "grouped": lambda: grouped_focal_loss_problem(33, [2, 5, 30]),
    "grouped-halves": lambda: grouped_focal_loss_problem(32, [4, 4], BF16),
    "norms": lambda: stacked_norms_problem((3, 2048), (3, 5), dtype=BF16),
    "fusion": lambda: graph_fusion_problem(graph_fusion, (3, 4, 32, 16)),
    "fusion-halves": lambda: graph_fusion_problem(graph_fusion, (3, 3, 33, 9), BF16),
    "gru": lambda: task_gru_problem(2, 2, 12, [3, 1, 2]),
    "gru-tail": lambda: task_gru_problem(1, 1, 37, [2, 1], BF16),
}


@pytest.mark.parametrize("aligned", [True, False], ids=["aligned", "misaligned"])
@pytest.mark.parametrize("name", [*SIZES, *PROBLEMS])
def test_no_access_beyond_a_tensor(name: str, aligned: bool) -> None:
    # One fails the launch; one that the kernels do not tell of ends the process, at a page.
    problem = SIZES[name]() if name in SIZES else PROBLEMS[name](F32)
    wanted = solve(problem)
    inside = problem.put(**{k: guarded.copy(v, aligned) for k, v in problem.tensors().items()})
    with guarded.Guarded(aligned):
        found = solve(inside)
    for one, other in zip(found, wanted, strict=True):
        assert_close(one, other.double(), one.dtype)


@pytest.mark.skipif(bool(host.SANITIZE), reason="ends the process there")
@pytest.mark.parametrize("aligned", [True, False], ids=["aligned", "misaligned"])
@pytest.mark.parametrize(("before", "behind"), [(0, 1), (1, 0)])
def test_one_element_too_many_is_told(before: int, behind: int, aligned: bool) -> None:
    rows, out = guarded.empty(5, F32, aligned), torch.empty(1, dtype=torch.float64)

    def square(first: int, count: int) -> None:
        matrix = (rows.data_ptr() + 4 * first, 0, count, 1)
        here = (host.DEVICE, host.STREAM, 0)
        host.kernels().row_dots(here, matrix, matrix, 1, count, False, out.data_ptr())

    square(0, 5)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        square(-before, 5 + before + behind)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    ("name", "argument"),
    [(name, argument) for name in ("focal", "focal-bytes") for argument in ("targets", "mask")]
    + [("multilabel", argument) for argument in ("logits", "targets", "weight")]
    + [(name, "targets") for name in ("grouped", "grouped-wide")]
    + [(name, "logits") for name in ("focal", "focal-bytes", "grouped", "grouped-wide")],
)
def test_one_argument_is_another_view(name: str, argument: str, view: str) -> None:
    problem = {
        "focal": lambda: focal_loss_problem(64, 8, F32),
        "focal-bytes": lambda: focal_loss_problem(64, 16, BF16, labels=torch.uint8),
        "multilabel": lambda: multilabel_loss_problem(64, 8, F32, clip=0.1),
        "grouped": lambda: grouped_focal_loss_problem(33, [2, 5, 30]),
        "grouped-wide": lambda: grouped_focal_loss_problem(16, [96, 160], BF16),
    }[name]()
    strided = problem.put(**{argument: VIEWS[view](problem.tensors()[argument])})
    dtype = problem.leaves["logits"].dtype
    for one, other in zip(solve(strided), exact(problem), strict=True):
        assert_close(one, other, dtype)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", ["focal", "multilabel", "grouped"])
def test_an_upstream_gradient_that_is_another_view(name: str, view: str) -> None:
    if name == "focal":
        problem = focal_loss_problem(64, 8, reduction="none")
    elif name == "multilabel":
        problem = multilabel_loss_problem(64, 8, reduction="none")
    else:
        problem = grouped_focal_loss_problem(33, [2, 5, 30], reduction="none")
    rows, columns = problem.outputs()[0].shape
    seeds = [VIEWS[view](torch.randn(rows, columns, dtype=torch.float64))]
    found = solve(problem, [seed.float() for seed in seeds])
    strided = VIEWS[view](seeds[0].float())
    for one, other in zip(solve(problem, [strided]), found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    for one, other in zip(found, exact(problem, seeds), strict=True):
        assert_close(one, other)


def test_exponentials_of_the_special_function_units() -> None:
    # The loss of a large margin is its exponential: what an addition would hide shows.
    margins = torch.linspace(0.5, 87, 4001).unsqueeze(1)
    others = {"targets": torch.ones_like(margins), "gamma": 0.0, "reduction": "none"}
    problem = Problem(focal_loss, {"logits": margins}, others)
    for one, other in zip(solve(problem), exact(problem), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-6, atol=0)
