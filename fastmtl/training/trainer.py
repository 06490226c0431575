"""A training run: its parts, its epochs with early stopping, and how it is stored and resumed."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fastmtl.balancing import Balancer
from fastmtl.data import MultiTaskData, Standardizer
from fastmtl.data.samples import Samples, as_data
from fastmtl.training import directory
from fastmtl.training.batches import Batches
from fastmtl.training.compiling import compiled
from fastmtl.training.config import TrainConfig
from fastmtl.training.ema import Ema
from fastmtl.training.epochs import Epochs
from fastmtl.training.evaluation import Evaluation
from fastmtl.training.factory import build_balancer, build_model
from fastmtl.training.finite import probabilities
from fastmtl.training.history import EpochRecord
from fastmtl.training.inputs import arrange, describe, fingerprint, load_data, need_trainable
from fastmtl.training.lock import locked
from fastmtl.training.logs import Log, StepRecord, need_log, open_log
from fastmtl.training.losses import build_loss, check_figures
from fastmtl.training.optimizer import make_optimizer
from fastmtl.training.parts import InParts
from fastmtl.training.precision import Precision
from fastmtl.training.ranks import current_ranks
from fastmtl.training.recipes import MAKING, OF_DATA, model_name
from fastmtl.training.report import Reporter
from fastmtl.training.reproducible import threads
from fastmtl.training.results import measure_run, write_results
from fastmtl.training.signals import StopRequest, stop_on_signals
from fastmtl.training.state import Progress, RunState
from fastmtl.training.steps import Steps
from fastmtl.training.store import RunStore, describe_run


class Trainer:
    """Trains a multi-task model with a balancer, and keeps the run in a directory.

    AdamW minimises the losses of the tasks as the balancer weighs them; after every epoch the
    validation split is measured, and training stops when `config.monitor` has not become better for
    `config.patience` epochs. The weights of the best epoch are kept, and the threshold of its
    decisions.

    With `config.standardize` the features are standardised by the training split. On the CPU of one
    machine, with one thread count, a run is the same bit for bit, interrupted and resumed or not:
    shuffling and dropout of an epoch are a function of `config.seed` and the epoch, the learning
    rate one of the step.

    Args:
        model: called as `model(x, lengths)`, gives logits (B, T), or with multi-class tasks those
            of `data.tasks`.
        balancer: weighs the tasks' losses; any of `fastmtl.balancing`.
        data: in the model's layout (`arrange`), or samples (x, y[, lengths]) as for
            `fastmtl.data.from_samples`.
        config: the options. Those that name or make a model, a balancer or data have no effect
            here, and config.json leaves them out: it names the classes instead.
        out_dir: gets config.json, model.safetensors (the best weights), checkpoint.safetensors (the
            state to resume from), metrics.json, history.csv, losses.png, figures.png and
            weights.png. Each is replaced as a whole, so that none is ever half written.
        reporter: is told what happens; by default nobody is.
        on_step: called with a `StepRecord` after every step, for logging of one's own. Reading its
            tensors waits for the device.
        on_epoch: called with the `EpochRecord` of every epoch. Of several processes the first alone
            calls either.

    Raises:
        DataError: if a split to train or validate on is empty, or has no label.
        ValueError: for a device that this machine has not, and for options that multi-class tasks
            cannot have.

    Examples:
        >>> import tempfile
        >>> config = TrainConfig(
        ...     data="synthetic:disaster?clips=60&frames=3&features=8",
        ...     epochs=2, hidden_size=4, attention_size=3, device="cpu",
        ... )
        >>> with tempfile.TemporaryDirectory() as out_dir:
        ...     trainer = Trainer.from_config(config, out_dir)
        ...     metrics = trainer.fit()
        >>> sorted(metrics), metrics["training"]["epochs"]
        (['test', 'training', 'val'], 2)
    """

    def __init__(
        self,
        model: nn.Module,
        balancer: Balancer,
        data: MultiTaskData | Samples,
        config: TrainConfig,
        out_dir: str | os.PathLike[str],
        *,
        reporter: Reporter | None = None,
        on_step: Callable[[StepRecord], object] | None = None,
        on_epoch: Callable[[EpochRecord], object] | None = None,
    ) -> None:
        data = as_data(data, config.seed, config.memory)
        need_trainable(data)
        check_figures(config, data.tasks)
        self.config = config
        made = {"model", "balancer", *OF_DATA, *MAKING}
        self.options = {k: value for k, value in config.to_dict().items() if k not in made}
        if name := model_name(model):
            self.options["model"] = name
        self.warnings = data.warnings
        self.out_dir = Path(out_dir)
        self.ranks = current_ranks()
        self.reporter = reporter if reporter and self.ranks.first else Reporter()
        need_log(config.log)
        self.device = self.ranks.device(config.device)
        self.model = model.to(self.device)
        self.balancer = balancer.to(self.device)
        self.tasks = data.tasks
        self.label_names = list(data.label_names)
        self.rows = {split: data.indices(split) for split in ("train", "val", "test")}
        self.description = {"name": data.name, **describe(data)}
        self.fingerprint = fingerprint(data)
        self.standardizer: Standardizer | None = None
        if config.standardize:
            self.standardizer = Standardizer().fit(data)
            data = self.standardizer.transform(data)
        self.loss = build_loss(config, data).to(self.device)
        self.batches = Batches(data, self.device)
        optimizer = make_optimizer(model, balancer, config, self.device)
        precision = Precision(config.precision, self.device)
        ema = None if config.ema is None else Ema(model, config.ema)
        called = compiled(model, self.device, config.accumulate) if config.compile else model
        self.steps = Steps(
            InParts(called, config.accumulate) if config.accumulate > 1 else called,
            self.loss,
            balancer,
            optimizer,
            precision,
            self.batches,
            self.rows["train"],
            config,
            self.ranks,
            ema,
        )
        self.evaluation = Evaluation(
            model, self.loss, self.batches, self.rows, self.tasks, config, self.ranks
        )
        self.state = RunState(
            model,
            balancer,
            optimizer,
            self.standardizer,
            Progress(monitor=config.monitor),
            precision.scaler,
            ema,
        )
        self.epochs = Epochs(
            self.steps,
            self.evaluation,
            self.state,
            balancer,
            config,
            self.ranks,
            self.reporter,
            on_step,
            on_epoch,
        )

    @classmethod
    def from_config(
        cls,
        config: TrainConfig,
        out_dir: str | os.PathLike[str],
        data: MultiTaskData | Samples | None = None,
        *,
        reporter: Reporter | None = None,
        on_step: Callable[[StepRecord], object] | None = None,
        on_epoch: Callable[[EpochRecord], object] | None = None,
    ) -> Trainer:
        """The trainer of the model and balancer that a configuration names.

        Args:
            config: the options.
            out_dir: the directory of the run.
            data: a data set, or samples as for `fastmtl.data.from_samples`; by default what
                `config.data` names.
            reporter: is told what happens.
            on_step: as for a trainer.
            on_epoch: as for a trainer.

        Raises:
            DataError: for data that cannot be used.
            ValueError: for options that do not fit it.
        """
        made = config.to_dict()
        if data is None:
            data = load_data(config, config.data, test=config.test, xml=config.xml)
        else:
            data = arrange(as_data(data, config.seed, config.memory), config.model)
            made = {name: value for name, value in made.items() if name not in OF_DATA}
        model = build_model(config, data)
        balancer = build_balancer(config, model, data)
        trainer = cls(
            model,
            balancer,
            data,
            config,
            out_dir,
            reporter=reporter,
            on_step=on_step,
            on_epoch=on_epoch,
        )
        trainer.options = made
        return trainer

    @property
    def progress(self) -> Progress:
        """The epochs so far."""
        return self.state.progress

    def fit(self, *, resume: bool = False, overwrite: bool = False) -> dict[str, Any]:
        """Train to the end and return what metrics.json holds.

        Without either option the directory must be new or empty.

        Args:
            resume: continue the run in the directory from its last completed epoch, and leave it as
                it is if it had finished.
            overwrite: replace the run in the directory.

        Raises:
            RunError: if the directory or the run in it does not fit.
            Interrupted: on SIGINT or SIGTERM, once the last completed epoch is stored.
            EndedElsewhere: if another of several processes failed or is gone.
            DivergedError: if a loss is not finite.
            OSError: if a file cannot be written.
        """
        if self.progress.epoch and not resume:
            raise RuntimeError("fit: this trainer has trained already; make a new one, or resume")
        with self.ranks.watching(), ExitStack() as held:
            self.ranks.need_same(self.fingerprint, "data: expected the same in every process")
            store = self.ranks.together(lambda: self._open(held, resume, overwrite))
            self._begin_alike()
            try:
                with threads(self.config.threads), stop_on_signals() as request:
                    stop = self.ranks.stop(request)
                    metrics = self._run(store, stop, resume)
                    stop.settle()
                    return metrics
            finally:
                self.reporter.close()

    def evaluate(self, split: str) -> dict[str, Any]:
        """`task_metrics` of the model as it is on "train", "val" or "test"."""
        return self.evaluation.figures(split, self.progress.threshold)

    def predict(self, split: str) -> Tensor:
        """Probabilities by the model as it is, (n, T) float64 on the CPU, in row order; of a
        multi-class task those of all classes (`tasks.columns()`)."""
        return probabilities(self.tasks, self.evaluation.logits(split))

    def _open(self, held: ExitStack, resume: bool, overwrite: bool) -> RunStore | None:
        """Where the run is kept, and its lock in `held`; None where another process keeps it.

        With `resume` the state is the stored one afterwards.
        """
        if not self.ranks.first:
            return None
        directory.check(self.out_dir, resume=resume, overwrite=overwrite)
        self.out_dir.mkdir(parents=True, exist_ok=True)
        lock = held.enter_context(locked(self.out_dir))
        # Another process may have been here since.
        directory.check(self.out_dir, resume=resume, overwrite=overwrite)
        record = describe_run(self.options, self.model, self.balancer, self.description)
        make = RunStore.resume if resume else RunStore.begin
        store = make(self.out_dir, lock, record, self.fingerprint)
        if resume and store.has_checkpoint():
            store.restore(self.state, self.device)
        return store

    def _begin_alike(self) -> None:
        """Bring every process to where the first one is."""
        if self.ranks.size == 1:
            return
        tensors, values = self.ranks.of_first(self.epochs.snapshot)
        if not self.ranks.first:
            self.state.load(tensors, values, self.device)
        self.steps.model = self.ranks.replicate(self.steps.model)

    def _run(self, store: RunStore | None, stop: StopRequest, resume: bool) -> dict[str, Any]:
        if self.epochs.finished:
            metrics = self._metrics(stop)
            # Of what a run stores the figures alone have no checksum.
            if self.ranks.of_first(lambda: metrics == directory.stored_metrics(self.out_dir)):
                self.reporter.message(f"already finished after {self.progress.epoch} epochs")
                return metrics
        if store is not None:
            store.open(keep_state=resume)
        with closing(self._log(store)) as log:
            self.epochs.train(store, log, stop)
        metrics = self._metrics(stop)
        self.ranks.together(lambda: self._conclude(store, metrics))
        return metrics

    def _log(self, store: RunStore | None) -> Log:
        name = None if store is None else self.config.log
        done = self.progress.epoch
        return open_log(name, self.out_dir, self.label_names, done, done * self.steps.per_epoch)

    def _metrics(self, stop: StopRequest) -> dict[str, Any]:
        """Load the best weights and measure them: what metrics.json is to hold."""
        self.model.load_state_dict(self.state.best)
        return measure_run(self.evaluation, self.progress, stop)

    def _conclude(self, store: RunStore | None, metrics: dict[str, Any]) -> None:
        if store is not None:
            store.lock.check()
            title = f"{store.title} on {self.description['name']}"
            write_results(self.out_dir, metrics, self.progress, self.label_names, title)
