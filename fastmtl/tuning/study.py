"""The trials of a search: drawn by Optuna, trained here or in processes, kept in a journal."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastmtl.data import MultiTaskData
from fastmtl.training import Reporter
from fastmtl.training.checkpoint import remove_temporaries, write_json
from fastmtl.training.lock import locked
from fastmtl.training.options import check_count
from fastmtl.training.processes import run_in_processes, threads_for
from fastmtl.tuning.samples import cached_samples, load_samples
from fastmtl.tuning.search import FILE, Search
from fastmtl.tuning.trial import ENDED, Outcome, outcome_of, run_trial, shown_value

JOURNAL = "journal.log"
TRIALS = "trials"
Say = Callable[[str], None]


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

    def run(
        self, data: MultiTaskData, reporter: Reporter | None, threads: int | None = None
    ) -> int:
        """Do a trial; its number."""
        folder_of = partial(_folder, self.out)
        return run_trial(self.search, self.study(), folder_of, data, reporter, threads)

    def outcomes(self) -> list[Outcome]:
        """The trials that have ended, the best first, failed ones last."""
        found = [
            outcome_of(self.search, trial)
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
            finished(index, work.run(data, reporter))
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


def _in_process(work: _Work, threads: int, index: int) -> int:
    """A trial in a process of many, each with so many threads."""
    with _quiet():
        return work.run(cached_samples(work.search.base), None, threads)


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
