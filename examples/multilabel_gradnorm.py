"""A multi-label classifier of your own, its labels balanced by GradNorm in one backward pass."""

import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fastmtl
from fastmtl.training import multilabel_metrics

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=20)
options = parser.parse_args()


class Classifier(nn.Module):
    """A trunk that all labels share, and a small network for each label."""

    def __init__(self, features: int, num_labels: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(features, 256), nn.ReLU(), nn.Dropout(0.3))
        self.shared = fastmtl.nn.SharedLinear(256, 128, num_labels)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Linear(128, 1)) for _ in range(num_labels)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, T) of features (N, D)."""
        views = self.shared.views(self.trunk(x))
        return torch.cat([head(h) for head, h in zip(self.heads, views, strict=True)], 1)


torch.manual_seed(0)
# Clips of 10 frames with 64 features, averaged over time; a tenth of the labels is missing (NaN).
data = fastmtl.data.load("synthetic:disaster?frames=10&features=64&missing=0.1")
x = data.x.mean(1)
train, test = data.indices("train"), data.indices("test")
loader = DataLoader(TensorDataset(x[train], data.y[train]), batch_size=64, shuffle=True)

model = Classifier(x.shape[1], data.num_tasks)
loss = fastmtl.nn.FocalLoss(gamma=2.0)
balancer = fastmtl.balancing.GradNorm(model, alpha=1.0)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

for _ in range(options.epochs):
    for features, labels in loader:
        balancer.backward(loss(model(features), labels))
        optimizer.step()
        optimizer.zero_grad()

model.eval()
with torch.no_grad():
    probabilities = model(x[test]).sigmoid()
metrics = multilabel_metrics(probabilities, data.y[test], data.label_names)
print(f"test mAP {metrics['map']:.2f}, micro-F1 {metrics['micro_f1']:.2f}")
for name, weight in zip(data.label_names, balancer.weights.tolist(), strict=True):
    print(f"{name:<18} weight {weight:.2f}, AP {metrics['average_precision'][name]:.2f}")
