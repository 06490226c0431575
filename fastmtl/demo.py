"""What fastmtl does: the same network timed twice, models beside a baseline, and a report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from fastmtl import data as sets
from fastmtl.balancing import Equal, GradNorm
from fastmtl.data import MultiTaskData, Standardizer
from fastmtl.models import MTMLAN
from fastmtl.nn import FocalLoss
from fastmtl.report import report
from fastmtl.training import Reporter, TrainConfig, Trainer, arrange, multilabel_metrics
from fastmtl.training.checkpoint import write_atomic
from fastmtl.training.thresholds import HALF, best_threshold

TIMED = "synthetic:disaster?clips=200&frames=40&features=256"
TRAINED = "synthetic:disaster-multimodal?clips=1000&frames=20&video=64"
BALANCERS = ("equal", "dmtl")
_BATCH, _GAMMA = 20, 2.0


@dataclass(frozen=True)
class Timing:
    """Seconds of an epoch of the same network, and how far any loss is apart in the end."""

    name: str
    plain: float
    fused: float
    difference: float


def timings() -> list[Timing]:
    """MTMLAN out of `torch.nn` layers and as fastmtl has it, without balancing and with GradNorm.

    Both start from the same weights and see the same batches, so that their losses agree.
    """
    data = sets.load(TIMED)
    return [_timed(data, "plain step", norms=False), _timed(data, "GradNorm", norms=True)]


def baseline(data: MultiTaskData) -> dict[str, Any]:
    """The test figures of ridge regression on features averaged over time.

    The penalty is the one with the highest mAP on the validation split, the threshold of decisions
    the one with the highest micro-F1 there, as for `trained`.
    """
    data = Standardizer().fit(data).transform(data)
    parts = data.tensors().values()
    x = torch.cat([part.mean(1) if part.ndim == 3 else part for part in parts], 1).double()
    x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    rows = {split: data.indices(split) for split in ("train", "val", "test")}
    train, y = x[rows["train"]], data.y.double()

    def scores(penalty: float) -> Tensor:
        squares = train.T @ train + penalty * torch.eye(x.shape[1], dtype=x.dtype)
        weights = torch.linalg.solve(squares, train.T @ y[rows["train"]])
        found: Tensor = (x @ weights).clamp(0, 1)
        return found

    def figures(found: Tensor, split: str, threshold: float = HALF) -> dict[str, Any]:
        own = rows[split]
        return multilabel_metrics(found[own], data.y[own], data.label_names, threshold=threshold)

    tried = [scores(10.0**power) for power in range(6)]
    best = max(tried, key=lambda found: figures(found, "val")["map"])
    val = rows["val"]
    return figures(best, "test", best_threshold(best[val], data.y[val], "micro_f1"))


def trained(data: MultiTaskData, balancer: str, out: Path, reporter: Reporter) -> dict[str, Any]:
    """The test figures of HGFN, trained into a directory."""
    config = TrainConfig(
        model="hgfn", balancer=balancer, epochs=12, hidden_size=64, threshold="micro_f1"
    )
    trainer = Trainer.from_config(config, out / balancer, data, reporter=reporter)
    figures: dict[str, Any] = trainer.fit(overwrite=True)["test"]
    return figures


def write_report(data: MultiTaskData, balancer: str, out: Path) -> Path:
    """Write the page that shows what `trained` learnt into the directory, and say where it is."""
    page = out / "report.html"
    write_atomic(page, report(out / balancer, arrange(data, "hgfn")))
    return page


def _timed(data: MultiTaskData, name: str, *, norms: bool) -> Timing:
    torch.manual_seed(0)
    (x,) = data.tensors().values()
    model = MTMLAN(
        x.shape[-1], data.num_tasks, hidden_size=64, attention_size=32, shared_features=128
    )
    twin = model.to_torch()
    # Weights that hardly move: both networks then follow the same path.
    balancer = GradNorm(model, lr=1e-9, balance_at="shared") if norms else Equal(data.num_tasks)
    loss = FocalLoss(gamma=_GAMMA)

    def fused(x: Tensor, y: Tensor) -> Tensor:
        losses: Tensor = loss(model(x), y)
        balancer.backward(losses)
        return losses

    def plain(x: Tensor, y: Tensor) -> Tensor:
        losses = _focal_loss(twin(x), y)
        if norms:
            shared: Any = twin.shared
            for each in losses:
                torch.autograd.grad(each, shared.weight, retain_graph=True)[0].norm()
        losses.sum().backward()
        return losses

    plain_seconds, plain_loss = _epoch(twin, plain, x, data)
    seconds, fused_loss = _epoch(model, fused, x, data)
    return Timing(name, plain_seconds, seconds, float((plain_loss - fused_loss).abs().max()))


def _epoch(
    model: nn.Module, step: Callable[[Tensor, Tensor], Tensor], x: Tensor, data: MultiTaskData
) -> tuple[float, Tensor]:
    """Seconds of a pass over the training split, and the losses (T,) of its last batch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    rows = data.indices("train")
    start, losses = 0.0, torch.zeros(())
    # The first batch is not timed: memory is found, and threads are started.
    for batch in [rows[:_BATCH], *rows.split(_BATCH)]:
        losses = step(x[batch], data.y[batch])
        optimizer.step()
        optimizer.zero_grad()
        start = start or time.perf_counter()
    return time.perf_counter() - start, losses.detach()


def _focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The focal loss by task as one would write it."""
    z = torch.where(targets == 1, logits, -logits)
    return -(torch.exp(_GAMMA * logsigmoid(-z)) * logsigmoid(z)).mean(0)
