"""What can only be seen on a GPU: graphs, streams, launches, large sizes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from fastmtl.ops import focal_loss, graph_fusion, task_grad_gramian, task_grad_norms
from tests.problems import (
    Problem,
    exact,
    focal_loss_problem,
    graph_fusion_problem,
    grouped_focal_loss_problem,
    multilabel_loss_problem,
    solve,
    stacked_norms_problem,
    task_grads_problem,
    task_gru_problem,
)
from tests.tolerances import assert_close

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device"),
]

BOTH: dict[str, Callable[[], Problem]] = {
    "focal": lambda: focal_loss_problem(3000, 7),
    "multilabel": lambda: multilabel_loss_problem(900, 7, clip=0.1),
    "grouped": lambda: grouped_focal_loss_problem(900, [3, 4]),
    "norms": lambda: stacked_norms_problem((3, 20_000), (3, 3)),
    "grad norms": lambda: task_grads_problem(task_grad_norms, (5, 64, 40, 30)),
    "gramian": lambda: task_grads_problem(task_grad_gramian, (5, 64, 40, 30)),
    "fusion": lambda: graph_fusion_problem(graph_fusion, (70, 5, 64, 16)),
}
# Triton has no kernel for it.
CUDA: dict[str, Callable[[], Problem]] = {
    "gru": lambda: task_gru_problem(7, 2, 128, [40, 31, 7] * 7),
    "large gru": lambda: task_gru_problem(3, 2, 512, [9, 4, 1, 5], shared=False),
}
everything = pytest.mark.parametrize(
    ("device", "name"),
    [("cuda", name) for name in BOTH | CUDA] + [("triton", name) for name in BOTH],
    indirect=["device"],
)


def step_of(name: str, device: torch.device) -> tuple[Problem, Callable[[], None]]:
    """A problem on the device, and a step that writes the gradients of its leaves."""
    problem = (BOTH | CUDA)[name]().to(device).differentiable()

    def step() -> None:
        for leaf in problem.leaves.values():
            leaf.grad = None
        torch.stack([out.sum() for out in problem.outputs()]).sum().backward()

    return problem, step


def kernels_of(step: Callable[[], object]) -> list[str]:
    """What the device runs in a step that has run before."""
    step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        step()
        torch.cuda.synchronize()
    cuda = torch.autograd.DeviceType.CUDA
    return [event.name for event in trace.events() if event.device_type == cuda]


@everything
def test_captured_in_a_graph(device: torch.device, name: str) -> None:
    problem, step = step_of(name, device)
    leaves = list(problem.leaves.values())
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    for leaf in leaves:
        leaf.grad = None
    with torch.cuda.graph(graph):
        step()
    captured = [leaf.grad for leaf in leaves]
    for _ in range(2):
        with torch.no_grad():
            for leaf in leaves:
                leaf.copy_(torch.randn_like(leaf))
        graph.replay()
        wanted = solve(problem)[-len(leaves) :]
        for one, other in zip(captured, wanted, strict=True):
            assert one is not None
            assert_close(one.cpu(), other, scale=2)


@everything
def test_never_waits_for_the_device(device: torch.device, name: str) -> None:
    _, step = step_of(name, device)
    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@everything
def test_runs_on_the_current_stream(device: torch.device, name: str) -> None:
    problem = (BOTH | CUDA)[name]().to(device)
    late = problem.changed(torch.zeros_like)
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream), torch.no_grad():
        torch.cuda._sleep(50_000_000)
        for leaf, value in zip(late.leaves.values(), problem.leaves.values(), strict=True):
            leaf.copy_(value)
        outputs = late.outputs()
    stream.synchronize()
    for one, other in zip(outputs, problem.outputs(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def test_three_launches_at_a_small_size(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Filling what torch.empty returns takes launches too.
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)
    logits = torch.randn(20, 7, device=device, requires_grad=True)
    targets, grad = torch.ones(20, 7, device=device), torch.ones(7, device=device)

    def step() -> None:
        logits.grad = None
        focal_loss(logits, targets).backward(grad)

    kernels = kernels_of(step)
    assert 1 <= len(kernels) <= 3, kernels


def test_more_than_two_to_the_31_elements(device: torch.device) -> None:
    # Logits and their gradient of 4 GiB, targets of 2, the loss and its gradient of 8, and a
    # comparison's 2 and a product's 8 beside them.
    if torch.cuda.mem_get_info()[0] < 40 << 30:
        pytest.skip("needs 40 GiB of free device memory")
    rows = (1 << 28) + 3
    logits = torch.zeros(rows, 8, dtype=torch.bfloat16, device=device)
    targets = torch.zeros(rows, 8, dtype=torch.bool, device=device)
    logits[-1], targets[-1] = 3, True
    logits.requires_grad_()
    loss = focal_loss(logits, targets, reduction="none")
    (grad,) = torch.autograd.grad(loss, logits, torch.ones_like(loss))
    ends = {"logits": torch.tensor([[0.0], [3.0]]).expand(2, 8)}
    labels = {"targets": torch.tensor([[0.0], [1.0]]).expand(2, 8), "reduction": "none"}
    wanted = exact(Problem(focal_loss, ends, labels))
    assert_close(loss[[0, -1]].detach().cpu(), wanted[0])
    assert_close(grad[[0, -1]].cpu(), wanted[1])
    assert bool((loss[:-1] == loss[0, 0]).all())
    assert bool((grad[:-1] == grad[0, 0]).all())


@pytest.mark.parametrize("device", ["cuda"], indirect=True)
def test_gru_at_the_papers_size(device: torch.device) -> None:
    lengths = [40 - i % 9 for i in range(20)]
    problem = task_gru_problem(7, 2, 128, lengths, inputs=2048).to(device)
    for one, other in zip(solve(problem), exact(problem), strict=True):
        assert_close(one, other)
    # The product, the rows that no sequence has, and one launch for all steps.
    with torch.no_grad():
        assert len(kernels_of(problem.outputs)) <= 6
