"""Measuring a model while it trains: logits of a split, losses, threshold and figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fastmtl.data.tasks import Tasks
from fastmtl.training.batches import Batches
from fastmtl.training.config import TrainConfig
from fastmtl.training.finite import check_losses, probabilities
from fastmtl.training.forward import compute_logits, evaluation_batch
from fastmtl.training.history import or_none
from fastmtl.training.ranks import Ranks
from fastmtl.training.shares import share_of_rows
from fastmtl.training.signals import StopRequest
from fastmtl.training.task_figures import task_metrics
from fastmtl.training.thresholds import best_threshold
from fastmtl.training.tuning import Tuning, tune


@dataclass(frozen=True)
class Validation:
    """Losses (T,), the threshold of decisions, and the figures at this threshold."""

    losses: list[float | None]
    threshold: float
    figures: dict[str, Any]


class Evaluation:
    """Measures a model as it is on the splits of its data.

    Args:
        model: called as `model(x, lengths)`, gives the logits of `tasks`.
        loss: of logits and targets, gives the tasks' losses (T,).
        batches: the samples.
        rows: those of each split, (n,).
        tasks: the T tasks.
        config: the options of the run.
        ranks: the processes that share every split, and all call what they measure.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        batches: Batches,
        rows: dict[str, Tensor],
        tasks: Tasks,
        config: TrainConfig,
        ranks: Ranks,
    ) -> None:
        self.model = model
        self.loss = loss
        self.batches = batches
        self.rows = rows
        self.tasks = tasks
        self.config = config
        self.ranks = ranks

    def logits(self, split: str, stop: StopRequest | None = None) -> Tensor:
        """Logits of a split, in row order. Raises Interrupted if `stop` was requested."""
        rows, ranks = self.rows[split], self.ranks
        logits = self.batches.targets.new_empty(0, sum(self.tasks.sizes))
        if not len(rows):
            return logits
        size = -(-evaluation_batch(self.config) // ranks.size)
        own = share_of_rows(rows, ranks.rank, ranks.size)
        if len(own):
            logits = compute_logits(self.model, self.batches, own, size, stop)
        return ranks.gather(logits, len(rows))

    def figures(
        self, split: str, threshold: float, stop: StopRequest | None = None
    ) -> dict[str, Any]:
        """`task_metrics` of a split. Raises DivergedError if the model gives NaN."""
        logits = self.logits(split, stop)
        return self.ranks.of_first(
            lambda: self._measure(probabilities(self.tasks, logits), split, threshold)
        )

    def validate(self, epoch: int, stop: StopRequest) -> Validation:
        """Measure the validation split after an epoch.

        Raises DivergedError for a loss that is not finite.
        """
        logits = self.logits("val", stop)
        return self.ranks.of_first(lambda: self._validate(epoch, logits))

    def tune(self, threshold: float, stop: StopRequest | None = None) -> Tuning:
        """Thresholds and temperatures by task, fitted on the validation split."""
        logits = self.logits("val", stop)
        return self.ranks.of_first(
            lambda: tune(logits.double().cpu(), self._targets("val").cpu(), threshold, self.tasks)
        )

    def _validate(self, epoch: int, logits: Tensor) -> Validation:
        targets = self._targets("val")
        losses = or_none(self.loss(logits, targets), (~targets.isnan()).any(0))
        check_losses(epoch, "validation", losses)
        chances = probabilities(self.tasks, logits)
        binary = self.tasks.num_binary
        threshold = best_threshold(
            chances[:, :binary], targets[:, :binary].cpu(), self.config.threshold
        )
        return Validation(losses, threshold, self._measure(chances, "val", threshold))

    def _targets(self, split: str) -> Tensor:
        return self.batches.targets[self.rows[split].to(self.batches.device)]

    def _measure(self, chances: Tensor, split: str, threshold: float) -> dict[str, Any]:
        targets = self._targets(split).cpu()
        return task_metrics(self.tasks, chances, targets, threshold=threshold)
