"""MTMLAN's recurrent heads, all tasks at once, beside one torch.nn.GRU per task.

The step is forward, focal loss and backward of the model with respect to all its weights; the peer
is `model.to_torch()`. The limit counts the floating-point operations of the matrix products, those
within the recurrence included, at the rate of a large product. Memory is what a step adds at most
to a process of its own, the gradients of the weights included.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from benchmarks.support import GEMM_SIZE, best_seconds, gemm_rate, peak_memory, time_peer
from fastmtl.models import MTMLAN
from fastmtl.ops import focal_loss
from tests.tolerances import assert_close


class Sizes(NamedTuple):
    B: int
    L: int
    D: int
    h: int
    T: int

    def __str__(self) -> str:
        return " ".join(f"{name}{size}" for name, size in self._asdict().items())


PAPER = Sizes(B=20, L=40, D=2048, h=128, T=7)
SWEEP = [
    Sizes(1, 9, 64, 32, 1),
    Sizes(1, 40, 2048, 128, 7),
    Sizes(1, 40, 256, 512, 1),
    Sizes(4, 200, 64, 64, 2),
    Sizes(20, 9, 64, 32, 100),
    Sizes(20, 40, 2048, 128, 1),
    Sizes(20, 40, 64, 128, 7),
    Sizes(20, 40, 256, 512, 2),
    Sizes(20, 200, 128, 128, 2),
    Sizes(64, 40, 512, 128, 7),
    Sizes(256, 9, 2048, 128, 2),
    Sizes(256, 40, 128, 32, 7),
    Sizes(256, 20, 64, 512, 1),
]
WHAT = ["training step", "inference"]
PEERS = ["fastmtl", "fastmtl, recompute", "torch.nn.GRU per task"]
CASES = [(WHAT[0], peer) for peer in PEERS] + [(WHAT[1], peer) for peer in (PEERS[0], PEERS[2])]


@pytest.mark.parametrize(("what", "peer"), CASES)
@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
def test_paper_size(benchmark: Any, padded: bool, what: str, peer: str) -> None:
    lengths = torch.randint(1, PAPER.L + 1, (PAPER.B,)) if padded else None
    run(benchmark, PAPER, what, peer, lengths)


@pytest.mark.parametrize(("what", "peer"), CASES)
@pytest.mark.parametrize("sizes", SWEEP, ids=str)
def test_sweep(benchmark: Any, sizes: Sizes, what: str, peer: str) -> None:
    run(benchmark, sizes, what, peer, None)


@pytest.mark.parametrize("peer", [PEERS[0], PEERS[2]])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(benchmark: Any, dtype: torch.dtype, peer: str) -> None:
    """A training step under autocast; "beside" is the share of the same step in float32.

    What the machine multiplies in halves differs by processor, hence no limit.
    """
    network, exact = problem(PAPER, WHAT[0], peer, None)
    exact()
    expected = [parameter.grad.clone() for parameter in network.parameters()]

    def step() -> None:
        with torch.autocast("cpu", dtype):
            exact()

    step()
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        assert (parameter.grad - gradient).norm() <= 0.1 * gradient.norm()
    group = f"MTMLAN {PAPER}, {WHAT[0]}, {dtype}"
    time_peer(benchmark, peer, step, group=group, beside=exact)


def run(benchmark: Any, sizes: Sizes, what: str, peer: str, lengths: Tensor | None) -> None:
    _, step = problem(sizes, what, peer, lengths)
    benchmark.extra_info["peak_memory"] = memory_alone(sizes, what, peer, lengths)
    steps_done = sizes.B * sizes.L if lengths is None else int(lengths.sum())
    group = f"MTMLAN {sizes}{'' if lengths is None else ' padded'}, {what}"
    limit = operations(sizes, steps_done, what) / product_rate()
    time_peer(benchmark, peer, step, group=group, limit=limit, limit_name="matrix products")


def problem(
    sizes: Sizes, what: str, peer: str, lengths: Tensor | None
) -> tuple[nn.Module, Callable[[], Any]]:
    """The network of a peer, checked against the other one, and its step."""
    model = MTMLAN(sizes.D, sizes.T, sizes.h, recompute="recompute" in peer)
    x = torch.randn(sizes.B, sizes.L, sizes.D)
    targets = torch.rand(sizes.B, sizes.T).round()
    twin = model.to_torch()
    with torch.no_grad():
        assert_close(model(x, lengths), twin(x, lengths).double(), torch.float32, scale=10)
    network = twin if peer == PEERS[-1] else model
    return network, steps(network, x, lengths, targets)[what]


def memory_alone(*arguments: Any) -> int | None:
    """The peak memory of a step of `problem(*arguments)`, in a process that did nothing else."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(memory, *arguments).result()


def memory(*arguments: Any) -> int | None:
    network, step = problem(*arguments)
    step()
    network.zero_grad()
    return peak_memory(step)


def steps(
    network: nn.Module, x: Tensor, lengths: Tensor | None, targets: Tensor
) -> dict[str, Callable[[], Any]]:
    def training() -> None:
        network.zero_grad()
        focal_loss(network(x, lengths), targets).sum().backward()

    @torch.no_grad()
    def inference() -> None:
        network(x, lengths)

    return {"training step": training, "inference": inference}


def operations(sizes: Sizes, rows: int, what: str) -> float:
    """Floating-point operations of the products of both layers, directions and all tasks."""
    _, _, features, h, tasks = sizes
    forward = 2 * rows * tasks * 2 * 3 * h * ((features + h) + (2 * h + h))
    unneeded = 2 * rows * tasks * 2 * 3 * h * features  # gradient of the model's input
    return 3 * forward - unneeded if what == "training step" else forward


@lru_cache
def product_rate() -> float:
    """Operations a second of a large product, by the faster of torch's two libraries."""
    weight = torch.rand(GEMM_SIZE, GEMM_SIZE)
    x = torch.rand_like(weight).to_mkldnn()
    return max(gemm_rate(), 2 * GEMM_SIZE**3 / best_seconds(lambda: linear(x, weight)))
