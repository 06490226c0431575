"""The steps of an epoch: batches forward, losses balanced and backward, weights updated."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fastmtl.balancing import Balancer
from fastmtl.training.batches import Batches
from fastmtl.training.config import TrainConfig
from fastmtl.training.ema import Ema
from fastmtl.training.history import or_none
from fastmtl.training.logs import StepRecord
from fastmtl.training.optimizer import learning_rate, set_lr
from fastmtl.training.precision import Precision
from fastmtl.training.ranks import Ranks
from fastmtl.training.report import Reporter
from fastmtl.training.reproducible import epoch_seed, seeded, shuffled
from fastmtl.training.shares import share_of_batches
from fastmtl.training.signals import StopRequest


class Steps:
    """Takes a model through epochs over some samples.

    Args:
        model: called as `model(x, lengths)`, gives logits (B, T).
        loss: of logits and targets, gives the tasks' losses (T,).
        balancer: weighs them.
        optimizer: over the parameters of both.
        precision: what the passes compute in.
        batches: the samples.
        rows: (n,), those to train on.
        config: the options of the run.
        ranks: the processes that share every batch.
        ema: the average of the weights, where one is kept.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        balancer: Balancer,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        batches: Batches,
        rows: Tensor,
        config: TrainConfig,
        ranks: Ranks,
        ema: Ema | None = None,
    ) -> None:
        self.model = model
        self.loss = loss
        self.balancer = balancer
        self.optimizer = optimizer
        self.precision = precision
        self.batches = batches
        self.rows = rows
        self.config = config
        self.ranks = ranks
        self.ema = ema

    @property
    def per_epoch(self) -> int:
        """Steps in an epoch."""
        return math.ceil(len(self.rows) / self.config.batch_size)

    def run(
        self,
        epoch: int,
        reporter: Reporter,
        stop: StopRequest,
        *,
        plateaus: int = 0,
        on_step: Callable[[StepRecord], object] | None = None,
    ) -> list[float | None]:
        """One pass over the samples; the mean loss of each task (T,).

        Args:
            epoch: from 1.
            reporter: is told of it.
            stop: is followed between two steps.
            plateaus: how many there were before, for the learning rate.
            on_step: is told of every step.

        Raises Interrupted between two steps if `stop` was requested.
        """
        config, precision, ranks = self.config, self.precision, self.ranks
        order = shuffled(self.rows, config.seed, epoch)
        share = share_of_batches(order, config.batch_size, ranks.rank, ranks.size)
        self.model.train()
        totals = torch.zeros(self.balancer.num_tasks, device=self.batches.device)
        counts = torch.zeros_like(totals)

        def mean_loss() -> float:
            return float((totals / counts.clamp(min=1)).mean())

        steps = self.per_epoch
        reporter.epoch_started(epoch, config.epochs, steps)
        with seeded(epoch_seed(config.seed, epoch, ranks.rank), self.batches.device):
            for step, batch in enumerate(self.batches(share.rows, share.batch_size)):
                stop.check()
                batch = share.only_counted(step, batch)
                lr = learning_rate(config, epoch, step, steps, plateaus)
                set_lr(self.optimizer, lr)
                with precision.autocast():
                    losses = self.loss(batch.forward(self.model), batch.targets)
                self.balancer.backward(losses, counts=batch.counts, scaler=precision.scaler)
                precision.step(self.optimizer, self.model.parameters(), config.clip_grad_norm)
                self.optimizer.zero_grad()
                number = (epoch - 1) * steps + step + 1
                if self.ema is not None:
                    self.ema.update(number)
                totals.addcmul_(losses.detach(), batch.counts)
                counts += batch.counts
                reporter.step(mean_loss)
                if on_step is not None:
                    weights = self.balancer.weights
                    on_step(StepRecord(epoch, number, lr, losses.detach(), weights))
        ranks.add(totals, counts)
        return or_none(totals / counts, counts > 0)
