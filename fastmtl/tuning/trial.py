"""One trial of a search: a run with the values that Optuna draws, and what is kept of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastmtl.data import MultiTaskData
from fastmtl.training import (
    DivergedError,
    EpochRecord,
    Reporter,
    RunError,
    TrainConfig,
    Trainer,
)
from fastmtl.training import directory as run_directory
from fastmtl.tuning.search import Search

# What says how a trial ended, by Optuna's name for it.
ENDED = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}


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


def shown_value(value: Any) -> str:
    """The value of an option, short.

    Examples:
        >>> shown_value(0.00123456), shown_value(64), shown_value("dmtl")
        ('0.00123', '64', 'dmtl')
    """
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def run_trial(
    search: Search,
    study: Any,
    folder_of: Callable[[int], Path],
    data: MultiTaskData,
    reporter: Reporter | None = None,
    threads: int | None = None,
) -> int:
    """Draw a trial, or take one that was stopped, and train it to its end; its number.

    Args:
        search: what is tried.
        study: the search as Optuna knows it.
        folder_of: where the run of a trial lies, by its number.
        data: the samples.
        reporter: is told what happens in the run.
        threads: of the run, unless the search says how many.
    """
    from optuna import TrialPruned
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState

    trial = study.ask()
    # Drawn from the search and the number alone, as far as what is known of other trials.
    study.sampler = TPESampler(seed=(search.base.seed + trial.number) % 2**32)
    config = search.draw(trial)
    if config.threads is None:
        config = dataclasses.replace(config, threads=threads)
    folder = folder_of(trial.number)
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


def outcome_of(search: Search, trial: Any) -> Outcome:
    """What Optuna kept of a trial that has ended."""
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
