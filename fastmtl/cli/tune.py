"""`fastmtl tune`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from fastmtl.cli import options
from fastmtl.cli.errors import (
    FAILED,
    STOPPED,
    BadInput,
    LastingConsole,
    bad_input,
    exit_with,
    failing,
    one_process,
    warn_of,
)
from fastmtl.training import BarReporter, Interrupted, LineReporter, TrainConfig
from fastmtl.training.device import resolve_device
from fastmtl.training.options import check_count
from fastmtl.training.options_file import read_options
from fastmtl.training.presets import PRESETS
from fastmtl.training.presets import preset as options_of
from fastmtl.tuning import Search, SearchError, default_space, load_samples, parse_space
from fastmtl.tuning import tune as run_trials
from fastmtl.tuning.report import BEST, trials_table, write_results
from fastmtl.tuning.study import need_optuna


@options.with_training_options
def tune(
    out: Annotated[Path, typer.Option(help="Directory for the trials and what they showed.")],
    search: Annotated[
        list[str] | None,
        typer.Option(
            help="What to try: NAME=LOW:HIGH, NAME=LOW:HIGH:log, NAME=LOW:HIGH:STEP, NAME=A,B,...",
            show_default="learning rate, weight decay, dropout, widths",
            rich_help_panel="Search",
        ),
    ] = None,
    trials: Annotated[
        int, typer.Option(help="Trials, those done before included.", rich_help_panel="Search")
    ] = 20,
    jobs: Annotated[int, typer.Option(help="Trials at a time.", rich_help_panel="Search")] = 1,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune/--no-prune",
            help="End trials early that are below the median of the others.",
            rich_help_panel="Search",
        ),
    ] = True,
    config: Annotated[
        Path | None,
        typer.Option(help="A TOML file of options, that others which are given override."),
    ] = None,
    preset: Annotated[
        str,
        typer.Option(
            help=f"Options to start from: {', '.join(PRESETS)}; others that are given override it.",
            rich_help_panel="Training",
            autocompletion=options.completion(PRESETS),
        ),
    ] = "default",
    **given: Any,
) -> None:
    """Search for good options of train; the same command goes on where it stopped.

    Example: fastmtl tune --data clips.npz --search lr=1e-4:1e-2:log --out runs/tuned
    """
    one_process()
    console = LastingConsole()
    reporter = BarReporter(console) if console.is_terminal and jobs == 1 else None
    with bad_input():
        try:
            need_optuna()
        except ImportError as error:
            raise BadInput(str(error)) from error
        wanted = _search(search or [], config, preset, given)
        check_count("trials", trials)
        check_count("jobs", jobs)
        resolve_device(wanted.base.device)
        wanted.check_directory(out)
        data = load_samples(wanted)
    warn_of(data.warnings)
    try:
        with failing():
            outcomes = run_trials(
                wanted,
                out,
                data,
                trials=trials,
                jobs=jobs,
                prune=prune,
                say=LineReporter(console).message,
                reporter=reporter,
            )
            write_results(wanted, outcomes, out)
    except (Interrupted, KeyboardInterrupt):
        exit_with("stopped; the same command goes on from here", STOPPED)
    except SearchError as error:
        exit_with(str(error), FAILED)
    console.print(trials_table(wanted, outcomes))
    best = shlex.quote(str(out / BEST))
    console.print(
        f"Files in {out}; train the best with: fastmtl train --config {best} --out DIR",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip


def _search(texts: list[str], file: Path | None, preset: str, given: dict[str, Any]) -> Search:
    """The search that a user asked for. Raises ValueError or OSError for one that cannot be."""
    given = options.with_absolute_paths({k: v for k, v in given.items() if v is not None})
    in_file = {} if file is None else options.with_absolute_paths(read_options(file))
    base = TrainConfig(**{**options_of(preset), **in_file, **given})
    default = TrainConfig()
    meant = [name for name, value in in_file.items() if value != getattr(default, name)]
    chosen = (*given, *meant)
    space = parse_space(texts) if texts else default_space(base.model, chosen)
    return Search(base, space, chosen)
