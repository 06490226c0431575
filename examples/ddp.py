"""DistributedDataParallel on gloo: two processes, with the weights of the whole batch in both."""

import argparse
import tempfile

import torch
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

import fastmtl

WORLD, TASKS = 2, 4


class Net(nn.Module):
    """A trunk, the last layer that the tasks share, and a linear layer for each."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(32, 128), nn.ReLU())
        self.shared = fastmtl.nn.SharedLinear(128, 64, TASKS)
        self.heads = nn.ModuleList(nn.Linear(64, 1) for _ in range(TASKS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, T) of features (N, 32)."""
        views = self.shared.views(self.trunk(x))
        return torch.cat([head(h.relu()) for head, h in zip(self.heads, views, strict=True)], 1)


def work(rank: int, path: str, steps: int) -> None:
    """What each process does: its own samples, everybody's weights."""
    torch.set_num_threads(1)
    store = distributed.FileStore(path, WORLD)  # under torchrun, init_process_group("gloo") will do
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=WORLD)
    torch.manual_seed(0)
    model = DistributedDataParallel(Net())
    loss = fastmtl.nn.FocalLoss()
    balancer = fastmtl.balancing.GradNorm(model)  # finds the ranks by the wrapped model
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    rule = torch.randn(32, TASKS)
    torch.manual_seed(1 + rank)
    for _ in range(steps):
        x = torch.randn(64, 32)
        y = (x @ rule > 3).float()
        y[torch.rand(y.shape) < 0.2] = torch.nan  # missing labels, other ones on every rank
        losses = loss(model(x), y)
        balancer.backward(losses, counts=y.isfinite().sum(0))
        optimizer.step()
        optimizer.zero_grad()
    weights = " ".join(f"{weight:.2f}" for weight in balancer.weights)
    for turn in range(WORLD):
        if turn == rank:
            print(f"rank {rank}: weights {weights}", flush=True)
        distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        arguments = f"{directory}/store", options.steps
        multiprocessing.spawn(work, arguments, nprocs=WORLD)
