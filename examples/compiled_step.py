"""torch.compile with fastmtl in it: a balanced network is one graph up to the balancer's call."""

import argparse

import torch
from torch import nn

import fastmtl

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--backend", default="inductor", help="of torch.compile; inductor needs g++")
options = parser.parse_args()

TASKS = 32


class Net(nn.Module):
    """A trunk, the last shared layer, and the tasks' networks, stacked."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(128, 512), nn.GELU(), nn.Linear(512, 512), nn.GELU())
        self.shared = fastmtl.nn.SharedLinear(512, 256, TASKS)
        self.heads = fastmtl.nn.TaskLinear(256, 1, TASKS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, T) of features (N, 128)."""
        return self.heads(self.shared(self.trunk(x)).relu()).squeeze(-1).T


def train(compiled: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The losses of the last step, and the weights that the balancer ends with."""
    torch.manual_seed(0)
    model, loss = Net(), fastmtl.nn.FocalLoss()
    balancer = fastmtl.balancing.GradNorm(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def forward(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return loss(model(x), y)

    step = torch.compile(forward, backend=options.backend, fullgraph=True) if compiled else forward
    x, y = torch.randn(256, 128), torch.rand(256, TASKS).round()
    for _ in range(options.steps):
        losses = step(x, y)
        balancer.backward(losses)  # outside: it runs the backward pass and sets the weights
        optimizer.step()
        optimizer.zero_grad()
    return losses.detach(), balancer.weights


# Of an op: the focal loss is one node, its gradient another.
logits, targets = torch.randn(256, TASKS, requires_grad=True), torch.rand(256, TASKS).round()
whole = torch.compile(fastmtl.ops.focal_loss, backend=options.backend, fullgraph=True)
whole(logits, targets).sum().backward()
print("focal loss compiled whole, gradient", tuple(logits.grad.shape))

eager, compiled = train(compiled=False), train(compiled=True)
for name, first, second in zip(("losses", "weights"), eager, compiled, strict=True):
    same = torch.allclose(first, second, rtol=1e-3)
    print(
        f"{name} of {options.steps} steps, eager and compiled: {'equal' if same else 'different'}"
    )
