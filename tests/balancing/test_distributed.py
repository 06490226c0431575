"""Balancing under DistributedDataParallel: one set of weights for all ranks."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from fastmtl.balancing import DynamicMultiTask
from tests.balancing.networks import F64, Net, T, batch
from tests.tolerances import assert_close

POSITIVES = [20, 300, 150, 45]
# Task 1 has no label at rank 0, task 2 at neither.
PRESENT = torch.tensor([[True, False, False, True], [True, True, False, True]])


def train(rank: int, path: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{path}/store", rank=rank, world_size=2
    )
    torch.manual_seed(0)
    model = DistributedDataParallel(Net())
    balancer = DynamicMultiTask(model, POSITIVES, 300).double()
    for seed in range(2):
        balancer.backward(model(batch(seed=2 * seed + rank)), present=PRESENT[rank])
    balancer.end_cycle()
    torch.save(balancer.state_dict(), path / f"{rank}.pt")
    distributed.destroy_process_group()


def test_every_rank_has_the_weights_of_the_average(tmp_path: Path) -> None:
    multiprocessing.spawn(train, (tmp_path,), nprocs=2)
    states = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name])

    torch.manual_seed(0)
    net = Net()
    balancer = DynamicMultiTask(net, POSITIVES, 300).double()
    count = PRESENT.sum(0)
    for seed in range(2):
        losses, norms = torch.zeros(2, T, dtype=F64), torch.zeros(2, T, dtype=F64)
        for rank in range(2):
            local = net(batch(seed=2 * seed + rank))
            losses[rank] = torch.where(PRESENT[rank], local.detach(), 0)
            (torch.where(PRESENT[rank], local, 0) * balancer.weights).sum().backward()
            norms[rank] = net.shared.task_grad_norms()
        mean = [values.sum(0) / count.clamp(min=1) for values in (losses, norms)]
        balancer._update(*mean, count > 0)
    balancer.end_cycle()
    assert_close(states[0]["weights"], balancer.weights)
    assert states[0]["weights"][2] == 1
