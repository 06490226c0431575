"""A regression, a yes-or-no and a three-class task on one trunk, with losses of different scale."""

import argparse

import torch
from torch import nn
from torch.nn import functional as F

import fastmtl

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=300)
options = parser.parse_args()


class Net(nn.Module):
    """A trunk, and the last layer that the tasks share."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(20, 128), nn.ReLU())
        self.shared = fastmtl.nn.SharedLinear(128, 64, num_tasks=3)
        self.price, self.sold, self.kind = nn.Linear(64, 1), nn.Linear(64, 1), nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A price (N,), a logit (N,) and three logits (N, 3) of features (N, 20)."""
        first, second, third = (view.relu() for view in self.shared.views(self.trunk(x)))
        return self.price(first).squeeze(1), self.sold(second).squeeze(1), self.kind(third)


def losses(model: Net, x: torch.Tensor, price, sold, kind) -> torch.Tensor:
    """One loss a task, (3,): any functions do that give a scalar."""
    predicted, logit, logits = model(x)
    return torch.stack(
        [
            F.mse_loss(predicted, price),  # in the square of the price's unit
            F.binary_cross_entropy_with_logits(logit, sold),
            F.cross_entropy(logits, kind),
        ]
    )


def sample(n: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Features, and what depends on them: prices that vary by 10 units, and classes."""
    x = torch.randn(n, 20, generator=generator)
    noise = torch.randn(n, generator=generator)
    price = 10 * torch.tanh(x[:, :5].sum(1) / 2) + noise
    sold = (x[:, 3:9].sum(1) > 1).float()
    kind = torch.stack([x[:, 9:12].sum(1), x[:, 12:15].sum(1), x[:, 15] * 2], 1).argmax(1)
    return x, price, sold, kind


def train(make_balancer) -> str:
    """Train with a balancer; what the model then makes of new samples."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    model = Net()
    balancer = make_balancer(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(options.steps):
        balancer.backward(losses(model, *sample(256, generator)))
        optimizer.step()
        optimizer.zero_grad()
    x, price, sold, kind = sample(4096, generator)
    with torch.no_grad():
        predicted, logit, logits = model(x)
    error = (predicted - price).abs().mean()
    right = ((logit > 0) == sold.bool()).float().mean(), (logits.argmax(1) == kind).float().mean()
    return f"price off by {error:.1f}, sold {right[0]:.2f} right, kind {right[1]:.2f} right"


print("equal   ", train(lambda model: fastmtl.balancing.Equal(num_tasks=3)))
print("GradNorm", train(fastmtl.balancing.GradNorm))
