"""The epochs of a run: trained, measured, told and stored, until no better one comes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext

from fastmtl.balancing import Balancer
from fastmtl.training.config import TrainConfig
from fastmtl.training.evaluation import Evaluation
from fastmtl.training.finite import check_losses
from fastmtl.training.history import EpochRecord
from fastmtl.training.logs import Log, StepRecord
from fastmtl.training.optimizer import count_plateaus
from fastmtl.training.ranks import Ranks
from fastmtl.training.report import Reporter
from fastmtl.training.signals import StopRequest
from fastmtl.training.state import RunState
from fastmtl.training.steps import Steps
from fastmtl.training.store import RunStore, Snapshot

# Between two checkpoints at least this long, so that runs of short epochs do not wait for the disk;
# the last completed epoch is written whenever training ends, whatever ends it but a kill.
CHECKPOINT_SECONDS = 10.0


class Epochs:
    """Takes the state of a run from epoch to epoch.

    Args:
        steps: train an epoch.
        evaluation: measures it.
        state: what they change.
        balancer: is told of the end of every epoch.
        config: the options of the run.
        ranks: the processes that share it.
        reporter: is told what happens.
        on_step: is called with every step, in the first process.
        on_epoch: is called with every epoch, likewise.
    """

    def __init__(
        self,
        steps: Steps,
        evaluation: Evaluation,
        state: RunState,
        balancer: Balancer,
        config: TrainConfig,
        ranks: Ranks,
        reporter: Reporter,
        on_step: Callable[[StepRecord], object] | None,
        on_epoch: Callable[[EpochRecord], object] | None,
    ) -> None:
        self.steps = steps
        self.evaluation = evaluation
        self.state = state
        self.balancer = balancer
        self.config = config
        self.ranks = ranks
        self.reporter = reporter
        self.on_step = on_step if ranks.first else None
        self.on_epoch = on_epoch if ranks.first else None

    @property
    def finished(self) -> bool:
        """Whether there is none left to train."""
        return self.state.progress.finished(self.config.epochs, self.config.patience)

    def train(self, store: RunStore | None, log: Log, stop: StopRequest) -> None:
        """Train all that are left; `store` is None in processes that store nothing.

        Raises Interrupted if `stop` was requested, DivergedError for a loss that is not finite.
        """
        pending = None if store is None or store.has_checkpoint() else self.snapshot()
        saved, progress = -math.inf, self.state.progress
        try:
            while not self.finished:
                if time.monotonic() - saved >= CHECKPOINT_SECONDS:
                    # Cleared first: a write that fails is not tried again on the way out.
                    due, pending = pending, None
                    if store is not None and due is not None:
                        store.save(self.state, due)
                    saved = time.monotonic()
                record = self._epoch(progress.epoch + 1, log, stop)
                if progress.add(record):
                    self.state.keep_best()
                self.balancer.end_cycle()
                self.reporter.epoch_ended(record, progress.best_epoch)
                pending = None if store is None else self.snapshot()
                log.epoch(record)
                if self.on_epoch is not None:
                    self.on_epoch(record)
        finally:
            if store is not None and pending is not None:
                store.save(self.state, pending)

    def _epoch(self, epoch: int, log: Log, stop: StopRequest) -> EpochRecord:
        def tell(record: StepRecord) -> None:
            log.step(record)
            if self.on_step is not None:
                self.on_step(record)

        told = self.on_step is not None or type(log) is not Log
        history = self.state.progress.history
        plateaus = count_plateaus(each.score(self.config.monitor) for each in history)
        start = time.perf_counter()
        losses = self.steps.run(
            epoch, self.reporter, stop, plateaus=plateaus, on_step=tell if told else None
        )
        weights = self.balancer.weights.tolist()
        seconds = time.perf_counter() - start
        self.ranks.of_first(lambda: check_losses(epoch, "training", losses))
        with nullcontext() if self.state.ema is None else self.state.ema.applied():
            val = self.evaluation.validate(epoch, stop)
        return EpochRecord(
            epoch,
            self.ranks.of_first(lambda: seconds),
            losses,
            val.losses,
            weights,
            val.figures["micro_f1"],
            val.figures["hamming_loss"],
            val.figures["map"],
            val.threshold,
            val.figures.get("macro_f1"),
        )

    def snapshot(self) -> Snapshot:
        """The state as it is, in copies."""
        tensors, values = self.state.tensors(), self.state.values()
        if self.ranks.size > 1:
            # To be stored even where a GPU waits for a process that is gone.
            tensors = {name: value.cpu() for name, value in tensors.items()}
        return tensors, values
