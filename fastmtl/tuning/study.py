"""The trials of a search: drawn by Optuna, trained here or in processes, kept in a journal."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

import fastmtl.data
from fastmtl.data import MultiTaskData
from fastmtl.data.splits import SPLITS
from fastmtl.training import (
    DivergedError,
    EpochRecord,
    Reporter,
    RunError,
    TrainConfig,
    Trainer,
    arrange,
    build_balancer,
    build_model,
)
from fastmtl.training import directory as run_directory
from fastmtl.training.checkpoint import remove_temporaries, write_json
from fastmtl.training.lock import locked
from fastmtl.training.options import check_count
from fastmtl.training.processes import run_in_processes, threads_for
from fastmtl.tuning.search import FILE, Search, without_idle

JOURNAL = "journal.log"
TRIALS = "trials"
# What says how a trial ended, by Optuna's name for it.
ENDED = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Args:
        number: from 0.
        state: "finished", "pruned" or "failed".
        drawn: the values of the options that were searched and had an effect.
        config: all its options.
        score: that of its best epoch, the higher the better; None if it failed before one.
        epochs: how many it trained.
        seconds: of training them.
        error: why it failed.
    """

    number: int
    state: str
    drawn: dict[str, Any]
    config: TrainConfig
    score: float | None
    epochs: int
    seconds: float
    error: str = ""


class SearchError(RuntimeError):
    """No trial of a search came to an end."""


def need_optuna() -> None:
    """Raise ImportError, with what to do, where Optuna is not installed."""
    if not find_spec("optuna"):
        raise ImportError('tune: needs Optuna; pip install "fastmtl-torch[tune]"')


def tune(
    search: Search,
    out: str | os.PathLike[str],
    data: MultiTaskData | None = None,
    *,
    trials: int = 20,
    jobs: int = 1,
    prune: bool = True,
    say: Say = print,
    reporter: Reporter | None = None,
) -> list[Outcome]:
    """Do the trials of a search that are not done yet, and return all of them, the best first.

    Optuna's TPE draws the values; its journal in the directory has every trial that has ended, and
    each trial is a run of its own beside it. So a search that was stopped or killed goes on with
    the trials under way, from their last checkpoints. Only the best trial's run is kept in the end.

    Args:
        search: what is tried.
        out: a directory that is new, empty, or holds trials of the same search.
        data: what `load_samples` gives of the search, if it was called before.
        trials: how many there are to be, those done before included.
        jobs: with more than 1 that many processes work at a time, each with its share of the CPU's
            threads.
        prune: whether a trial ends at an epoch at which its best figure so far is below the median
            of the others', once five have ended and a tenth of the epochs are over.
        say: gets a line after each trial.
        reporter: is told what happens in a trial of this process.

    Raises:
        ImportError: where Optuna is not installed.
        RunError: if the directory does not fit, or another process works in it.
        ValueError: for counts below 1, and what `load_samples` raises.
        SearchError: if no trial finished, with the reason of the last.
        Interrupted: on SIGINT or SIGTERM.
    """
    need_optuna()
    check_count("trials", trials)
    check_count("jobs", jobs)
    out = Path(out)
    search.check_directory(out)
    if data is None:
        data = load_samples(search)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out), _quiet():
        # Another process may have been here since.
        search.check_directory(out)
        remove_temporaries(out, [FILE])
        write_json(out / FILE, search.fixed())
        _mend(out / JOURNAL)
        _begin(search, out)
        return _run_open(_Work(search, out, prune), trials, jobs, say, reporter, data)


@dataclass(frozen=True)
class _Work:
    """What a process needs to do trials."""

    search: Search
    out: Path
    prune: bool

    def study(self) -> Any:
        """The search as Optuna knows it; more than one process may have it open."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        warm_up = max(1, self.search.base.epochs // 10)
        pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=warm_up)
        return optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(self.out / JOURNAL))),
            study_name="fastmtl",
            direction="maximize",
            pruner=pruner if self.prune else optuna.pruners.NopPruner(),
            load_if_exists=True,
        )

    def outcomes(self) -> list[Outcome]:
        """The trials that have ended, the best first, failed ones last."""
        found = [
            _outcome(self.search, trial)
            for trial in self.study().get_trials(deepcopy=False)
            if trial.state.name in ENDED
        ]
        rank = list(ENDED.values()).index
        return sorted(found, key=lambda each: (rank(each.state), -(each.score or 0.0), each.number))


def _run_open(
    work: _Work, trials: int, jobs: int, say: Say, reporter: Reporter | None, data: MultiTaskData
) -> list[Outcome]:
    outcomes = work.outcomes()
    left = trials - len(outcomes)
    names = ", ".join(work.search.space)
    say(f"{trials} trials over {names}, {len(outcomes)} of them done already")
    _keep_best(work, outcomes)

    def finished(_: int, number: int) -> None:
        outcomes = work.outcomes()
        _keep_best(work, outcomes)
        last = next(each for each in outcomes if each.number == number)
        best = "  best" if last is outcomes[0] and last.state == "finished" else ""
        say(f"[{len(outcomes)}/{trials}] {_line(work.search, last)}{best}")

    if jobs == 1:
        for index in range(left):
            finished(index, _do(work, data, reporter))
    elif left > 0:
        run_in_processes(partial(_in_process, work, threads_for(jobs)), range(left), jobs, finished)
    outcomes = work.outcomes()
    if outcomes[0].state != "finished":
        raise SearchError(f"no trial finished: {_line(work.search, outcomes[-1])}")
    return outcomes


def _line(search: Search, outcome: Outcome) -> str:
    drawn = ", ".join(f"{name} {shown_value(value)}" for name, value in outcome.drawn.items())
    figure = "" if outcome.score is None else f" {search.monitor} {search.shown(outcome.score):.4f}"
    ended = "" if outcome.state == "finished" else f" {outcome.state}"
    parts = [f"trial {outcome.number}:{figure}{ended}", f"{outcome.epochs} epochs", drawn]
    return "  ".join([*parts, outcome.error]).rstrip()


def shown_value(value: Any) -> str:
    """The value of an option, short.

    Examples:
        >>> shown_value(0.00123456), shown_value(64), shown_value("dmtl")
        ('0.00123', '64', 'dmtl')
    """
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _in_process(work: _Work, threads: int, index: int) -> int:
    """A trial in a process of many, each with so many threads."""
    with _quiet():
        return _do(work, _cached_samples(work.search.base), None, threads)


def _do(
    work: _Work, data: MultiTaskData, reporter: Reporter | None, threads: int | None = None
) -> int:
    """Draw a trial, or take one that was stopped, and train it to its end; its number."""
    from optuna import TrialPruned
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState

    search, study = work.search, work.study()
    trial = study.ask()
    # Drawn from the search and the number alone, as far as what is known of other trials.
    study.sampler = TPESampler(seed=(search.base.seed + trial.number) % 2**32)
    config = search.draw(trial)
    if config.threads is None:
        config = dataclasses.replace(config, threads=threads)
    folder = _folder(work.out, trial.number)
    told = set(study.trials[trial.number].intermediate_values)
    made: list[Trainer] = []

    def judge(record: EpochRecord) -> None:
        if record.epoch not in told:
            trial.report(record.score(config.monitor), record.epoch)
        if trial.should_prune():
            raise TrialPruned

    def make() -> Trainer:
        trainer = Trainer.from_config(config, folder, data, reporter=reporter, on_epoch=judge)
        made.append(trainer)
        return trainer

    score, state, error = None, TrialState.COMPLETE, ""
    if reporter is not None:
        reporter.message(f"trial {trial.number}:")
    try:
        history = _trained(make, folder).progress.history
        score = max(record.score(config.monitor) for record in history)
    except TrialPruned:
        state = TrialState.PRUNED
    except (DivergedError, ValueError, torch.OutOfMemoryError) as failure:
        state, error = TrialState.FAIL, str(failure)
    history = made[-1].progress.history if made else []
    for name, value in (
        ("epochs", len(history)),
        ("seconds", sum(record.seconds for record in history)),
        ("error", error),
    ):
        trial.set_user_attr(name, value)
    study.tell(trial, score, state)
    number: int = trial.number
    return number


def _trained(make: Callable[[], Trainer], folder: Path) -> Trainer:
    """The trainer of a run that was begun before or not, at its end."""
    if (folder / run_directory.CHECKPOINT).is_file():
        trainer = make()
        try:
            trainer.fit(resume=True)
        except RunError:
            pass  # what is stored of it cannot be used, and is trained again
        else:
            return trainer
    trainer = make()
    trainer.fit(overwrite=True)
    return trainer


def _outcome(search: Search, trial: Any) -> Outcome:
    config = search.with_values(trial.params)
    scores = trial.intermediate_values.values()
    score = trial.value if trial.value is not None else max(scores, default=None)
    facts = trial.user_attrs
    return Outcome(
        trial.number,
        ENDED[trial.state.name],
        dict(trial.params),
        config,
        score,
        facts.get("epochs", 0),
        facts.get("seconds", 0.0),
        facts.get("error", ""),
    )


def _folder(out: Path, number: int) -> Path:
    return out / TRIALS / f"{number:04d}"


def _keep_best(work: _Work, outcomes: list[Outcome]) -> None:
    """Remove what other trials that have ended stored of their runs."""
    best = outcomes[0].number if outcomes and outcomes[0].state == "finished" else None
    for outcome in outcomes:
        if outcome.number != best:
            shutil.rmtree(_folder(work.out, outcome.number), ignore_errors=True)


def _begin(search: Search, out: Path) -> None:
    """Have a new search start from its base, and one that was stopped take up what was under way.

    Nobody else works in the directory.
    """
    from optuna.trial import TrialState

    study = _Work(search, out, prune=False).study()
    trials = study.get_trials(deepcopy=False)
    if not trials and (start := search.start()):
        study.enqueue_trial(start)
    storage = study._storage
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)


def _mend(journal: Path) -> None:
    """Make whole what a kill in the middle of a write left of the journal."""
    lock = journal.with_name(f"{journal.name}.lock")
    lock.unlink(missing_ok=True)
    if journal.is_file() and not (content := journal.read_bytes()).endswith(b"\n"):
        os.truncate(journal, content.rfind(b"\n") + 1)


def load_samples(search: Search) -> MultiTaskData:
    """The samples that trials train and validate on, once they fit all that may be drawn.

    Args:
        search: what is tried.

    Raises:
        DataError: for data that cannot be used.
        ValueError: where the monitor has no value on the validation split, and for a model or a
            balancer that does not fit the data.
    """
    data = _samples(search.base)
    _check_judge(search, data)
    _check_kinds(search, data)
    return data


def _samples(base: TrainConfig) -> MultiTaskData:
    """The samples to train and validate on; those to test on belong to no split."""
    data = fastmtl.data.load(
        base.data,
        test=base.test,
        xml=base.xml,
        modalities=base.modalities,
        seed=base.seed,
        memory=base.memory,
    )
    split = torch.where(data.split == SPLITS.index("test"), -1, data.split)
    return dataclasses.replace(data, split=split)


_cached_samples = lru_cache(maxsize=1)(_samples)


def _check_judge(search: Search, data: MultiTaskData) -> None:
    """Raise ValueError where the monitor has no value on the validation split."""
    if search.base.monitor != "loss" and not bool((data.y[data.indices("val")] == 1).any()):
        raise ValueError(
            f"monitor: expected loss, because no label is positive in the validation split, got "
            f"{search.base.monitor}"
        )


def _check_kinds(search: Search, data: MultiTaskData) -> None:
    """Raise ValueError where a model or a balancer that may be drawn does not fit the data."""
    last = {name: values.ends()[-1] for name, values in search.space.items()}
    for kind in search.kinds():
        drawn = {**last, "model": kind.model, "balancer": kind.balancer, "loss": kind.loss}
        config = without_idle(dataclasses.replace(search.base, **drawn))
        arranged = arrange(data, config.model)
        build_balancer(config, build_model(config, arranged), arranged)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what Optuna says of each trial."""
    from optuna import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(level)
