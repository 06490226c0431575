"""Balancing under DistributedDataParallel: what one process reaches on the batch of all ranks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from fastmtl.balancing import (
    DBMTL,
    FAMO,
    IMTL,
    IMTLL,
    MGDA,
    STCH,
    Balancer,
    CAGrad,
    DynamicMultiTask,
    DynamicWeightAverage,
    Equal,
    GeometricMean,
    GradNorm,
    GradVac,
    GramianBalancer,
    NashMTL,
    PCGrad,
    RandomLossWeighting,
    UncertaintyWeighting,
    UPGrad,
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
    return GradNorm([*net.mlp.parameters(), net.shared.bias, net.last.weight])


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
    "stch": lambda model: STCH(T, warmup=1),
    "imtll": lambda model: IMTLL(T),
    "imtl": IMTL,
    "dbmtl": DBMTL,
    "pcgrad": PCGrad,
    "gradvac": GradVac,
    "cagrad": CAGrad,
    "fork upgrad": lambda model: UPGrad(at_fork(model)),
    "nashmtl": NashMTL,
    "trunk": lambda model: GramianBalancer(model, softmin, scope="trunk"),
    "trunk norms": lambda model: GradNorm(model, scope="trunk"),
    "fork trunk": lambda model: UPGrad(at_fork(model), scope="trunk"),
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


def shard(net: torch.nn.Module) -> torch.nn.Module:
    for part in (net.mlp, net.shared, net.last):
        fully_shard(part)
    return fully_shard(net)


def compiled(model: torch.nn.Module) -> torch.nn.Module:
    return torch.compile(model, backend="eager")


Wrap = Callable[[torch.nn.Module], torch.nn.Module]
# What models are wrapped in before the balancer is built from them, and after.
WRAPPERS: dict[str, tuple[Wrap, Wrap]] = {
    "ddp": (DistributedDataParallel, lambda net: net),
    "ddp afterwards": (lambda net: net, DistributedDataParallel),
    "compiled ddp": (lambda net: compiled(DistributedDataParallel(net)), lambda net: net),
    "ddp compiled": (lambda net: DistributedDataParallel(compiled(net)), lambda net: net),
    "fsdp": (shard, lambda net: net),
    "fsdp afterwards": (lambda net: net, shard),
}
WRAPPED = [
    (wrapper, method)
    for wrapper in WRAPPERS
    for method in ("shared", "mgda", "dwa", "first")
    # Parameters under FSDP: see test_parameters_under_fsdp_are_refused.
    if not (wrapper.startswith("fsdp") and method == "first")
]


def run(
    method: str, sizes: tuple[int, int], rank: int | None, wrapper: str = "ddp"
) -> dict[str, Tensor]:
    """A short training run, of one rank or of one process on the whole batch."""
    torch.manual_seed(0)
    model: torch.nn.Module = Labelled(fork=method.startswith("fork"))
    part = slice(None)
    before, after = WRAPPERS[wrapper]
    if rank is not None:
        part = slice(sizes[0]) if rank == 0 else slice(sizes[0], None)
        model = before(model)
    balancer = METHODS[method](model).double()
    if rank is not None:
        model = after(model)
    optimizer = torch.optim.SGD([*model.parameters(), *balancer.parameters()], lr=0.01)
    totals = []
    for x, mask in batches(sizes):
        losses, counts = model(x[part], mask[part])
        optimizer.zero_grad()
        totals.append(balancer.backward(losses, counts=counts))
        optimizer.step()
        balancer.end_cycle()
    state = {
        f"model.{k.replace('module.', '').replace('_orig_mod.', '')}": full(v)
        for k, v in model.state_dict().items()
    }
    return {**state, **balancer.state_dict(), "totals": torch.stack(totals)}


def full(value: Tensor) -> Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value


def approximate(rank: int) -> dict[str, Tensor]:
    """Norms of each rank's own batch; ranks hold the same one here, so that nothing is lost."""
    torch.manual_seed(0)
    results = {}
    for name, method in (("norms", GradNorm), ("gramian", MGDA)):
        torch.manual_seed(0)
        model = DistributedDataParallel(Net())
        balancer = method(model).double().distribute(exact=False)
        balancer.backward(model(torch.ones(3, 6, dtype=F64)))
        results[name] = balancer.weights
    return results


def draw(rank: int) -> dict[str, Tensor]:
    torch.manual_seed(rank)
    balancer = RandomLossWeighting(T)
    balancer.backward(torch.ones(T, requires_grad=True) * 1)
    return {"weights": balancer.weights}


def draw_from_gramian(rank: int) -> dict[str, Tensor]:
    torch.manual_seed(0)
    net = Net()
    balancer = GramianBalancer(net, lambda gramian: torch.rand(T, dtype=F64)).double()
    torch.manual_seed(rank)
    balancer.backward(net(torch.ones(3, 6, dtype=F64)))
    grad = net.shared.weight.grad
    assert grad is not None
    return {"weights": balancer.weights, "grad": grad}


# Of two ranks: means over labels, and how many these are.
MEANS = torch.tensor([[1.0, 4.0, 9.0, 16.0], [25.0, 36.0, 49.0, 64.0]])
COUNTS = torch.tensor([[1, 3, 0, 2], [3, 1, 0, 0]])


def refused(rank: int) -> dict[str, str]:
    """What is said to parameters under FSDP, sharded after and before the balancer was built."""
    net = Net()
    balancer = GradNorm(net, balance_at="first").double()
    model = shard(net)
    with pytest.raises(RuntimeError) as late:
        balancer.backward(model(torch.ones(3, 6, dtype=F64)))
    with pytest.raises(ValueError, match="sharded") as early:
        GradNorm(net, balance_at="first")
    return {"late": str(late.value), "early": str(early.value)}


def refused_below(rank: int) -> dict[str, str]:
    """What is said of a scope that FSDP shards and frees before it is measured."""
    net = Net()
    balancer = GradNorm(net, scope="trunk").double()
    model = shard(net)
    with pytest.raises(RuntimeError) as told:
        balancer.backward(model(torch.ones(3, 6, dtype=F64)))
    return {"trunk": str(told.value)}


def update(rank: int) -> dict[str, Tensor]:
    """FAMO's second look at a batch."""
    balancer = FAMO(T)
    balancer.backward(MEANS[rank].clone().requires_grad_(), counts=COUNTS[rank])
    balancer.update(MEANS[rank].sqrt(), counts=COUNTS[rank])
    return balancer.state_dict()


def apart(rank: int) -> dict[str, Tensor]:
    """Processes that train apart from each other."""
    own, _ = distributed.new_subgroups(1)
    balancer = GeometricMean(2).distribute(own)
    total = balancer.backward(torch.tensor([1.0, 4.0 + 5 * rank], requires_grad=True))
    return {"total": total}


def copied(rank: int) -> dict[str, Tensor]:
    """A copy of a balancer at work, and of its model, finds its ranks again."""
    torch.manual_seed(0)
    model = DistributedDataParallel(Net())
    balancer = GradNorm(model).double()
    x = torch.ones(3, 6, dtype=F64) + rank
    balancer.backward(model(x))
    net, copy = deepcopy((model.module, balancer))
    copy.backward(net(x))
    return copy.state_dict()


def half(rank: int) -> dict[str, Tensor]:
    balancer = Equal(T).distribute()
    losses = torch.ones(T, dtype=torch.bfloat16, requires_grad=True)
    total = balancer.backward(losses, counts=torch.full((T,), 1000 + rank))
    return {"total": total, "grad": losses.grad}


SAME = [draw, draw_from_gramian, update, copied]


def work(rank: int, path: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{path}/store", rank=rank, world_size=2
    )
    results = {(m, s): run(m, s, rank) for m in METHODS for s in SIZES}
    for wrapper, method in WRAPPED:
        results[wrapper, method] = run(method, SIZES[2], rank, wrapper)
    extra = {f.__name__: f(rank) for f in (approximate, half, apart, refused, refused_below, *SAME)}
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


@pytest.mark.parametrize(("wrapper", "method"), WRAPPED)
def test_ranks_are_found_through_wrappers(
    ranks: list[dict[object, dict[str, Tensor]]], wrapper: str, method: str
) -> None:
    for name, value in run(method, SIZES[2], None).items():
        first, second = (rank[wrapper, method][name] for rank in ranks)
        assert torch.equal(first, second), name
        assert_close(first.to(F64), value, scale=10)


def test_parameters_under_fsdp_are_refused(ranks: list[dict[object, dict[str, str]]]) -> None:
    for rank in ranks:
        for message in rank["refused"].values():
            assert "balance_at" in message


def test_a_trunk_under_fsdp_is_refused(ranks: list[dict[object, dict[str, str]]]) -> None:
    for rank in ranks:
        message = rank["refused_below"]["trunk"]
        assert "scope:" in message
        assert "FSDP frees their parameters; measure at the layer" in message


def test_second_look_is_at_the_batch_of_all_ranks(
    ranks: list[dict[object, dict[str, Tensor]]],
) -> None:
    balancer, counts = FAMO(T), COUNTS.sum(0)
    before, after = (
        (COUNTS * losses).sum(0) / counts.clamp(min=1) for losses in (MEANS, MEANS.sqrt())
    )
    balancer.backward(before.requires_grad_(), counts=counts)
    balancer.update(after, counts=counts)
    assert_close(ranks[0]["update"]["logits"], balancer.logits)


def test_ranks_of_a_group_of_one_are_apart(ranks: list[dict[object, dict[str, Tensor]]]) -> None:
    assert [float(rank["apart"]["total"]) for rank in ranks] == [2.0, 3.0]


@pytest.mark.parametrize("what", ["approximate", *(f.__name__ for f in SAME)])
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
