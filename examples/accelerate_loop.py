"""A loop under Accelerate: bfloat16, accumulation, two processes. `pip install accelerate`."""

import argparse

import torch
from accelerate import Accelerator, debug_launcher
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fastmtl

TASKS = 4


class Net(nn.Module):
    """A trunk, the last layer that the tasks share, and a linear layer for each."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(32, 128), nn.ReLU())
        self.shared = fastmtl.nn.SharedLinear(128, 64, TASKS)
        self.heads = fastmtl.nn.TaskLinear(64, 1, TASKS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, T) of features (N, 32)."""
        return self.heads(self.shared(self.trunk(x)).relu()).squeeze(-1).T


def train(epochs: int) -> None:
    """What each process does."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, rule = torch.randn(2000, 32), torch.randn(32, TASKS)
    y = (x @ rule > torch.tensor([0.0, 3.0, 6.0, 9.0])).float()  # the last is rare

    accelerator = Accelerator(cpu=True, mixed_precision="bf16", gradient_accumulation_steps=2)
    net, loss = Net(), fastmtl.nn.FocalLoss()
    balancer = fastmtl.balancing.GradNorm(net)  # takes all processes at its first step
    model, optimizer, loader = accelerator.prepare(
        net,
        torch.optim.AdamW(net.parameters(), lr=3e-3),
        DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True),
    )
    for _ in range(epochs):
        for features, labels in loader:
            with accelerator.accumulate(model):
                losses = loss(model(features).float(), labels)
                counts = labels.isfinite().sum(0)
                # Divided by 2 there; the norms are taken without that factor.
                balancer.backward(losses, counts=counts, backward=accelerator.backward)
                optimizer.step()
                optimizer.zero_grad()
        balancer.end_cycle()

    net.eval()
    with torch.no_grad():
        recall = (net(x) > 0)[y == 1].float().mean()
    weights = " ".join(f"{weight:.2f}" for weight in balancer.weights)
    if accelerator.is_main_process:
        print(f"{accelerator.num_processes} processes, recall {recall:.2f}, weights {weights}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    debug_launcher(train, (options.epochs,), num_processes=2)  # `accelerate launch` elsewhere
