"""Balancing under DistributedDataParallel: what one process reaches on the batch of all ranks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from fastmtl.balancing import (
    FAMO,
    MGDA,
    Balancer,
    DynamicMultiTask,
    DynamicWeightAverage,
    Equal,
    GeometricMean,
    GradNorm,
    GramianBalancer,
    RandomLossWeighting,
    UncertaintyWeighting,
)
from fastmtl.nn import TaskFork
from tests.balancing.networks import F64, Net, T
from tests.tolerances import assert_close

POSITIVES = [20, 300, 150, 45]
STEPS = 3
# Rows of rank 0 and 1: few (the ranks exchange inputs), many (gradients), and uneven.
SIZES = [(3, 3), (40, 40), (2, 5)]


class Labelled(Net):
    """Mean losses over the labels that are there, (T,), and how many those are, (T,)."""

    def __init__(self, fork: bool = False) -> None:
        super().__init__()
        self.fork = TaskFork(T) if fork else None

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.mlp(x)
        if self.fork is None:
            views = self.shared(hidden)
        else:
            y = torch.nn.functional.linear(hidden, self.shared.weight, self.shared.bias)
            views = self.fork(y)
        errors = (self.last(self.first(views).tanh()).squeeze(2) - 1).square()  # (T, N)
        counts = mask.sum(0)
        scale = torch.arange(1, T + 1, dtype=F64)
        return scale * (errors * mask.T).sum(1) / counts.clamp(min=1), counts


def softmin(gramian: Tensor) -> Tensor:
    return torch.softmax(-gramian.sum(1), 0)


def at(balance_at: str) -> Callable[..., Balancer]:
    return functools.partial(
        DynamicMultiTask, positives=POSITIVES, samples=300, balance_at=balance_at
    )


def at_parameters(model: torch.nn.Module) -> Balancer:
    net = model.module if isinstance(model, DistributedDataParallel) else model
    return GradNorm([*net.mlp.parameters(), *net.shared.parameters()])


def at_fork(model: torch.nn.Module) -> TaskFork:
    return (model.module if isinstance(model, DistributedDataParallel) else model).fork


METHODS: dict[str, Callable[..., Balancer]] = {
    "shared": at("shared"),
    "first": at("first"),
    "last": at("last"),
    "parameters": at_parameters,
    "fork": lambda model: GradNorm(at_fork(model)),
    "mgda": MGDA,
    "gramian": lambda model: GramianBalancer(model, softmin),
    "fork gramian": lambda model: GramianBalancer(at_fork(model), softmin),
    "equal": lambda model: Equal(T),
    "uncertainty": lambda model: UncertaintyWeighting(T),
    "dwa": lambda model: DynamicWeightAverage(T),
    "famo": lambda model: FAMO(T),
    "geometric": lambda model: GeometricMean(T),
}


def batches(sizes: tuple[int, int]) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    rows = sum(sizes)
    for _ in range(STEPS):
        mask = torch.rand(rows, T, generator=generator) < 0.6
        mask[: sizes[0], 1] = False  # task 1 has no label at rank 0, task 2 at neither
        mask[:, 2] = False
        mask[-1, [0, 1, 3]] = True
        yield torch.randn(rows, 6, dtype=F64, generator=generator), mask


def run(method: str, sizes: tuple[int, int], rank: int | None) -> dict[str, Tensor]:
    """A short training run, of one rank or of one process on the whole batch."""
    torch.manual_seed(0)
    model: torch.nn.Module = Labelled(fork=method.startswith("fork"))
    part = slice(None)
    if rank is not None:
        part = slice(sizes[0]) if rank == 0 else slice(sizes[0], None)
        model = DistributedDataParallel(model)
    balancer = METHODS[method](model).double()
    if rank is not None and balancer._group is None:
        balancer.distribute()
    optimizer = torch.optim.SGD([*model.parameters(), *balancer.parameters()], lr=0.01)
    totals = []
    for x, mask in batches(sizes):
        losses, counts = model(x[part], mask[part])
        optimizer.zero_grad()
        totals.append(balancer.backward(losses, counts=counts))
        optimizer.step()
        balancer.end_cycle()
    state = {f"model.{k.removeprefix('module.')}": v for k, v in model.state_dict().items()}
    return {**state, **balancer.state_dict(), "totals": torch.stack(totals)}


def approximate(rank: int) -> dict[str, Tensor]:
    """Norms of each rank's own batch; ranks hold the same one here, so that nothing is lost."""
    torch.manual_seed(0)
    model = DistributedDataParallel(Net())
    norm, gramian = GradNorm(model), MGDA(model.module)
    results = {}
    for name, balancer in (("norms", norm), ("gramian", gramian)):
        balancer.double().distribute(exact=False)
        model.module.shared.weighting = balancer._weigh if name == "gramian" else None
        balancer.backward(model(torch.ones(3, 6, dtype=F64)))
        results[name] = balancer.weights
    return results


def draw(rank: int) -> dict[str, Tensor]:
    torch.manual_seed(rank)
    balancer = RandomLossWeighting(T).distribute()
    balancer.backward(torch.ones(T, requires_grad=True) * 1)
    return {"weights": balancer.weights}


def half(rank: int) -> dict[str, Tensor]:
    balancer = Equal(T).distribute()
    losses = torch.ones(T, dtype=torch.bfloat16, requires_grad=True)
    total = balancer.backward(losses, counts=torch.full((T,), 1000 + rank))
    return {"total": total, "grad": losses.grad}


def work(rank: int, path: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{path}/store", rank=rank, world_size=2
    )
    results = {(m, s): run(m, s, rank) for m in METHODS for s in SIZES}
    extra = {"approximate": approximate(rank), "draw": draw(rank), "half": half(rank)}
    torch.save({**results, **extra}, path / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[object, dict[str, Tensor]]]:
    path = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(work, (path,), nprocs=2)
    return [torch.load(path / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("method", METHODS)
def test_ranks_reach_what_one_process_reaches(
    ranks: list[dict[object, dict[str, Tensor]]], method: str, sizes: tuple[int, int]
) -> None:
    expected = run(method, sizes, None)
    for name, value in expected.items():
        first, second = (rank[method, sizes][name] for rank in ranks)
        assert torch.equal(first, second), name
        assert_close(first.to(F64), value, scale=10)


@pytest.mark.parametrize("what", ["approximate", "draw"])
def test_every_rank_has_the_same_weights(
    ranks: list[dict[object, dict[str, Tensor]]], what: str
) -> None:
    for name, value in ranks[0][what].items():
        assert torch.equal(value, ranks[1][what][name])


def test_equal_batches_are_balanced_exactly_by_the_approximation(
    ranks: list[dict[object, dict[str, Tensor]]],
) -> None:
    for name, method in (("norms", GradNorm), ("gramian", MGDA)):
        torch.manual_seed(0)
        net = Net()
        balancer = method(net).double()
        balancer.backward(net(torch.ones(3, 6, dtype=F64)))
        assert_close(ranks[0]["approximate"][name], balancer.weights)


def test_counts_of_half_precision_losses_are_not_rounded(
    ranks: list[dict[object, dict[str, Tensor]]],
) -> None:
    for rank, count in zip(ranks, (1000, 1001), strict=True):
        assert_close(rank["half"]["grad"], torch.full((T,), 2 * count / 2001))
        assert rank["half"]["total"] == T


def test_distribute_needs_a_process_group() -> None:
    with pytest.raises(RuntimeError, match=r"torch\.distributed is not initialised"):
        Equal(T).distribute()
