"""What can only be seen on a GPU: graphs, streams, launches, large sizes, the sanitizer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from fastmtl.ops import focal_loss
from tests.gpu.problems import (
    Problem,
    focal_problem,
    fusion_problem,
    grads_problem,
    grouped_problem,
    gru_problem,
    norms_problem,
    reference,
    solve,
)
from tests.tolerances import assert_close

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device"),
]

PROBLEMS = {
    "focal": lambda: focal_problem(3000, 7, torch.float32),
    "grouped": lambda: grouped_problem(900, [3, 4], torch.float32),
    "norms": lambda: norms_problem((3, 20_000), torch.float32),
    "grads": lambda: grads_problem(5, 64, 40, 30, torch.float32),
    "fusion": lambda: fusion_problem(70, 5, 64, 16, torch.float32),
    "gru": lambda: gru_problem(7, 2, 128, [40, 31, 7] * 7, torch.float32),
    "large gru": lambda: gru_problem(3, 2, 512, [9, 4, 1, 5], torch.float32, shared=False),
}


@pytest.fixture(params=list(PROBLEMS))
def problem(request: pytest.FixtureRequest, device: torch.device) -> Problem:
    if "gru" in request.param and request.node.callspec.params["device"] == "triton":
        pytest.skip("Triton has no kernel for it")
    return PROBLEMS[request.param]()


def step_of(problem: Problem, device: torch.device) -> tuple[list[Tensor], Callable[[], None]]:
    """Leaves on the device, and a step that writes their gradients."""
    function, leaves, constants = problem
    leaves = [leaf.to(device).requires_grad_() for leaf in leaves]
    constants = [constant.to(device) for constant in constants]

    def step() -> None:
        for leaf in leaves:
            leaf.grad = None
        torch.stack([out.sum() for out in function(leaves, constants)]).sum().backward()

    return leaves, step


def kernels_of(step: Callable[[], object]) -> list[str]:
    """What the device runs in a step that has run before."""
    step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        step()
        torch.cuda.synchronize()
    cuda = torch.autograd.DeviceType.CUDA
    return [event.name for event in trace.events() if event.device_type == cuda]


def test_captured_in_a_graph(device: torch.device, problem: Problem) -> None:
    leaves, step = step_of(problem, device)
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
        wanted = solve((problem[0], leaves, problem[2]), device)[-len(leaves) :]
        for one, other in zip(captured, wanted, strict=True):
            assert one is not None
            assert_close(one.cpu(), other, scale=2)


def test_never_waits_for_the_device(device: torch.device, problem: Problem) -> None:
    _, step = step_of(problem, device)
    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_runs_on_the_current_stream(device: torch.device, problem: Problem) -> None:
    function, leaves, constants = problem
    leaves = [leaf.to(device) for leaf in leaves]
    constants = [constant.to(device) for constant in constants]
    late = [torch.zeros_like(leaf) for leaf in leaves]
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream), torch.no_grad():
        torch.cuda._sleep(50_000_000)
        for leaf, value in zip(late, leaves, strict=True):
            leaf.copy_(value)
        outputs = function(late, constants)
    stream.synchronize()
    for one, other in zip(outputs, function(leaves, constants), strict=True):
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
    if torch.cuda.mem_get_info()[0] < 24 << 30:
        pytest.skip("needs 24 GB of free device memory")
    rows = (1 << 28) + 3
    logits = torch.zeros(rows, 8, dtype=torch.bfloat16, device=device)
    targets = torch.zeros(rows, 8, dtype=torch.bool, device=device)
    logits[-1], targets[-1] = 3, True
    logits.requires_grad_()
    loss = focal_loss(logits, targets, reduction="none")
    (grad,) = torch.autograd.grad(loss, logits, torch.ones_like(loss))
    function, _, (_, mask, _) = focal_problem(2, 8, torch.float32, reduction="none")
    ends = torch.tensor([[0.0], [3.0]]).expand(2, 8)
    labels = torch.tensor([[0.0], [1.0]]).expand(2, 8)
    wanted = reference((function, [ends.clone()], [labels, mask | True, torch.ones(8)]))
    assert_close(loss[[0, -1]].detach().cpu(), wanted[0])
    assert_close(grad[[0, -1]].cpu(), wanted[1])
    assert bool((loss[:-1] == loss[0, 0]).all())
    assert bool((grad[:-1] == grad[0, 0]).all())


@pytest.mark.parametrize("device", ["cuda"], indirect=True)
def test_gru_at_the_papers_size(device: torch.device) -> None:
    problem = gru_problem(7, 2, 128, [40 - i % 9 for i in range(20)], torch.float32, inputs=2048)
    for one, other in zip(solve(problem, device), reference(problem), strict=True):
        assert_close(one, other)
    # The product, the rows that no sequence has, and one launch for all steps.
    function, leaves, _ = problem
    with torch.no_grad():
        leaves = [leaf.to(device) for leaf in leaves]
        assert len(kernels_of(lambda: function(leaves, []))) <= 6


@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_sanitizer(tool: str) -> None:
    sanitizer = shutil.which("compute-sanitizer") or shutil.which(
        "/usr/local/cuda/bin/compute-sanitizer"
    )
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not installed")
    # PyTorch's allocator would hide a write behind a tensor.
    result = subprocess.run(
        [
            *("env", "PYTORCH_NO_CUDA_MEMORY_CACHING=1", sanitizer, "--tool", tool),
            *("--kernel-name", "kernel_substring=fastmtl", "--error-exitcode", "9"),
            *(sys.executable, "-m", "tests.gpu.small_run"),
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    if "Device not supported" in result.stdout:
        pytest.skip("compute-sanitizer does not support this device")
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
