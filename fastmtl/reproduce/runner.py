"""All runs of a plan, one after the other or in several processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fastmtl.reproduce.execute import execute, stored_result, with_threads
from fastmtl.reproduce.plan import FILE, Plan, Run
from fastmtl.training import Reporter
from fastmtl.training.checkpoint import remove_temporaries, write_json
from fastmtl.training.lock import locked
from fastmtl.training.options import check_count
from fastmtl.training.processes import run_in_processes, threads_for
from fastmtl.training.report import FIGURES, shown

Results = dict[str, list[dict[str, Any]]]
Say = Callable[[str], None]


def run_all(
    plan: Plan,
    out: str | os.PathLike[str],
    *,
    jobs: int = 1,
    say: Say = print,
    reporter: Reporter | None = None,
) -> Results:
    """Do every run of a plan that is not done yet; return the results of each system by run.

    A finished run is not done again, a stopped one goes on from its last epoch. The directory is
    held meanwhile.

    Args:
        plan: the table to fill.
        out: a directory that is new, empty, or holds a reproduction of the same table, data and
            options; seeds and systems may have been added.
        jobs: with more than 1 that many processes work at a time, each with its share of the CPU's
            threads.
        say: gets a line after each run.
        reporter: is told what happens in a run of this process.

    Raises:
        RunError: if the directory does not fit, or another process works in it.
        ValueError: for `jobs` below 1.
        Exception: what `Trainer.fit` raises.
    """
    check_count("jobs", jobs)
    out = Path(out)
    plan.check_directory(out)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        # Another process may have been here since.
        plan.check_directory(out)
        remove_temporaries(out, [FILE])
        write_json(out / FILE, plan.fixed())
        return _run_open(plan, out, jobs, say, reporter)


def _run_open(plan: Plan, out: Path, jobs: int, say: Say, reporter: Reporter | None) -> Results:
    runs = plan.runs()
    results = {run: stored_result(plan, run, out) for run in runs}
    open_runs = [run for run, result in results.items() if result is None]
    done = len(runs) - len(open_runs)
    each = "folds" if plan.cross_validates else "seeds"
    parts = f"{len(plan.chosen)} systems, {len(runs) // len(plan.chosen)} {each}"
    say(f"{len(runs)} runs ({parts}), {done} of them done already")

    def finished(run: Run, result: dict[str, Any]) -> None:
        nonlocal done
        done += 1
        results[run] = result
        figure = plan.paper.figures[0]
        value = shown(result["test"][figure])
        say(f"[{done}/{len(runs)}] {run.name}: {FIGURES[figure]} {value}")

    if jobs == 1:
        for run in open_runs:
            if reporter is not None:
                reporter.message(f"{run.name}:")
            finished(run, execute(plan, run, out, reporter))
    elif open_runs:
        do = partial(_execute, with_threads(plan, threads_for(jobs)), out)
        run_in_processes(do, open_runs, jobs, finished)
    by_system: Results = {system.name: [] for system in plan.chosen}
    for run, result in results.items():
        if result is not None:
            by_system[run.system].append(result)
    return by_system


def _execute(plan: Plan, out: Path, run: Run) -> dict[str, Any]:
    return execute(plan, run, out)
