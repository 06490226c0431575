"""`fastmtl train`."""

from __future__ import annotations

import os
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from fastmtl.cli import options
from fastmtl.cli.errors import (
    STOPPED,
    LastingConsole,
    bad_input,
    exit_with,
    failing,
    launched,
    warn_of,
)
from fastmtl.cli.launch import follow_launcher, launch
from fastmtl.training import (
    BarReporter,
    Interrupted,
    LineReporter,
    TrainConfig,
    Trainer,
)
from fastmtl.training import directory as run_directory
from fastmtl.training.config import check_effect, resolve_device
from fastmtl.training.options import check_count
from fastmtl.training.presets import PRESETS
from fastmtl.training.presets import preset as options_of
from fastmtl.training.ranks import joined, rank_device, started_with
from fastmtl.training.report import results_table


@options.with_training_options
def train(
    out: Annotated[Path, typer.Option(help="Directory for everything the run writes.")],
    resume: Annotated[bool, options.flag("--resume", "Continue the run in --out.", "Run")] = False,
    overwrite: Annotated[
        bool, options.flag("--overwrite", "Replace the run in --out.", "Run")
    ] = False,
    preset: Annotated[
        str,
        typer.Option(
            help=f"Options to start from: {', '.join(PRESETS)}; others that are given override it.",
            rich_help_panel="Training",
            autocompletion=options.completion(PRESETS),
        ),
    ] = "default",
    processes: Annotated[
        int,
        typer.Option(
            help="Processes of this machine that share the samples of every step.",
            rich_help_panel="Run",
        ),
    ] = 1,
    **given: Any,
) -> None:
    """Train a model; results, weights and plots go to --out.

    Example: fastmtl train --model mtmlan --data clips.npz --out runs/first
    """
    given = {name: value for name, value in given.items() if value is not None}
    for name in ("data", "test", "xml"):
        if not given.get(name, "synthetic:").startswith("synthetic:"):
            given[name] = os.path.abspath(given[name])
    configure = partial(_config, out, given, preset, resume=resume, overwrite=overwrite)
    with bad_input():
        _check_processes(processes)
    if processes > 1 and not launched():
        with bad_input():
            device = configure().device
            rank_device(device, processes - 1)
        hint = f"{_going_on(out)} --processes {processes}"
        launch(sys.argv[1:], processes, hint=hint)
    follow_launcher()
    with joined() as ranks:
        console = LastingConsole()
        reporter = BarReporter(console) if console.is_terminal else LineReporter(console)
        with bad_input():
            config = ranks.of_first(configure)
            trainer = ranks.together(partial(Trainer.from_config, config, out, reporter=reporter))
        _run(trainer, console, resume=resume, overwrite=overwrite)


def _check_processes(processes: int) -> None:
    """Raise ValueError unless so many can be started here."""
    check_count("processes", processes)
    if (started := started_with()) > 1 and processes > 1 and not launched():
        raise ValueError(
            f"processes: expected 1 under torchrun, which started {started}, got {processes}"
        )


def _config(
    out: Path, given: dict[str, Any], preset: str, *, resume: bool, overwrite: bool
) -> TrainConfig:
    """The options of the run, once the directory can take it. Raises ValueError or OSError."""
    run_directory.check(out, resume=resume, overwrite=overwrite)
    started = {**options_of(preset), **given}
    config = run_directory.resumable_by_name(out, started) if resume else TrainConfig(**started)
    check_effect(config, given)
    resolve_device(config.device)
    return config


def _run(trainer: Trainer, console: LastingConsole, *, resume: bool, overwrite: bool) -> None:
    config, first = trainer.config, trainer.ranks.first
    if first:
        warn_of(trainer.warnings)
    trainer.reporter.message(_description(trainer))
    metrics = _fit(trainer, resume=resume, overwrite=overwrite)
    if not first:
        return
    console.print(results_table(metrics, f"{config.model}, {config.balancer}"))
    training = metrics["training"]
    trainer.reporter.message(
        f"best epoch {training['best_epoch']} of {training['epochs']}, "
        f"{training['seconds_per_epoch']:.2f} s/epoch; results in {trainer.out_dir}"
    )


def _description(trainer: Trainer) -> str:
    """What is about to be trained, on what."""
    config, rows, size = trainer.config, trainer.rows, trainer.ranks.size
    samples = ", ".join(f"{len(rows[split]):,} {split}" for split in ("train", "val", "test"))
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    device = f"{size} processes on {trainer.device.type}" if size > 1 else trainer.device
    return (
        f"{config.model}, {config.balancer}, {parameters:,} parameters, {device}; "
        f"{config.data}: {len(trainer.label_names)} labels, samples: {samples}"
    )


def _fit(trainer: Trainer, *, resume: bool, overwrite: bool) -> dict[str, Any]:
    try:
        with failing():
            return trainer.fit(resume=resume, overwrite=overwrite)
    except Interrupted:
        if not trainer.ranks.first:
            sys.exit(STOPPED)
        exit_with(
            f"stopped after {trainer.progress.epoch} epochs; {_going_on(trainer.out_dir)}", STOPPED
        )


def _going_on(out: Path) -> str:
    return f"continue with: fastmtl train --out {shlex.quote(str(out))} --resume"
