"""Every CUDA kernel once at sizes with tails, for compute-sanitizer."""

from __future__ import annotations

import torch

import fastmtl
from fastmtl.ops import graph_fusion
from tests.problems import (
    focal_loss_problem,
    graph_fusion_problem,
    grouped_focal_loss_problem,
    multilabel_loss_problem,
    solve,
    stacked_norms_problem,
    task_gru_problem,
)


def main() -> None:
    """Run them; a wrong result is for other tests to find."""
    device = torch.device("cuda")
    with fastmtl.use_backend("native"):
        for dtype in (torch.float32, torch.bfloat16):
            for problem in (
                focal_loss_problem(20, 7, dtype),
                focal_loss_problem(3001, 9, dtype),
                focal_loss_problem(5, 1201, dtype, reduction="mean"),
                multilabel_loss_problem(20, 7, dtype),
                multilabel_loss_problem(3001, 9, dtype, clip=0.1, by_task=False, gamma_neg=4),
                grouped_focal_loss_problem(133, [2, 5, 30], dtype),
                stacked_norms_problem((3, 20_001), (3, 3), dtype=dtype),
                graph_fusion_problem(graph_fusion, (5, 3, 33, 9), dtype),
                graph_fusion_problem(graph_fusion, (3, 5, 1100, 40), dtype),
                task_gru_problem(3, 2, 37, [4, 1, 3, 4, 2], dtype),
                task_gru_problem(1, 1, 128, [3, 2], dtype),
                task_gru_problem(2, 1, 300, [2, 1, 3], dtype),
            ):
                solve(problem.to(device))
    torch.cuda.synchronize()


if __name__ == "__main__":
    main()
