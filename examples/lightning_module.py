"""A Lightning module whose tasks are balanced: `pip install lightning`."""

import argparse

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fastmtl
from fastmtl.training import multilabel_metrics

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=10)
options = parser.parse_args()


class Balanced(lightning.LightningModule):
    """The balancer runs the backward pass, so Lightning has to leave it to this module."""

    def __init__(self, features: int, num_labels: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.trunk = nn.Sequential(nn.Linear(features, 256), nn.ReLU())
        self.shared = fastmtl.nn.SharedLinear(256, 128, num_labels)
        self.heads = fastmtl.nn.TaskLinear(128, 1, num_labels)
        self.loss = fastmtl.nn.FocalLoss()
        self.balancer = fastmtl.balancing.GradNorm(self.shared)  # in the checkpoint, as a module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, T) of features (N, D)."""
        return self.heads(self.shared(self.trunk(x)).relu()).squeeze(-1).T

    def training_step(self, batch: list[torch.Tensor], index: int) -> None:
        x, y = batch
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.balancer.backward(self.loss(self(x), y))
        optimizer.step()

    def on_train_epoch_end(self) -> None:
        self.balancer.end_cycle()  # nothing for GradNorm; DynamicMultiTask re-balances here

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


lightning.seed_everything(0, verbose=False)
data = fastmtl.data.load("synthetic:disaster?frames=10&features=64")
x = data.x.mean(1)
train, test = data.indices("train"), data.indices("test")
loader = DataLoader(TensorDataset(x[train], data.y[train]), batch_size=64, shuffle=True)

model = Balanced(x.shape[1], data.num_tasks)
trainer = lightning.Trainer(
    max_epochs=options.epochs,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(model, loader)

model.eval()
with torch.no_grad():
    metrics = multilabel_metrics(model(x[test]).sigmoid(), data.y[test])
weights = " ".join(f"{weight:.2f}" for weight in model.balancer.weights.tolist())
print(f"test mAP {metrics['map']:.2f}, weights {weights}")
