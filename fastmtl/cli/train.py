"""`fastmtl train`."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
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
    show,
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
from fastmtl.training.device import resolve_device
from fastmtl.training.effect import check_effect
from fastmtl.training.options import check_count
from fastmtl.training.options_file import options_toml, read_options
from fastmtl.training.presets import PRESETS
from fastmtl.training.presets import preset as options_of
from fastmtl.training.ranks import joined, rank_device, started_with
from fastmtl.training.report import results_table, told


@options.with_training_options
def train(
    out: Annotated[
        Path | None,
        typer.Option(help="Directory for everything the run writes.", show_default="required"),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="A TOML file of options, that others which are given override."),
    ] = None,
    print_config: Annotated[
        bool, options.flag("--print-config", "Print all options as such a file and exit.")
    ] = False,
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
    given = options.with_absolute_paths({name: v for name, v in given.items() if v is not None})
    with bad_input():
        in_file = {} if config is None else options.with_absolute_paths(read_options(config))
        wanted = _Wanted(out, preset, in_file, given, resume, overwrite)
        if print_config:
            show(options_toml(wanted.options()), nl=False)
            return
        _check_processes(processes)
        if processes > 1 and not launched():
            rank_device(wanted.checked().device, processes - 1)
            hint = f"{_going_on(wanted.directory)} --processes {processes}"
            launch(sys.argv[1:], processes, hint=hint)
    follow_launcher()
    with joined() as ranks:
        console = LastingConsole()
        reporter = BarReporter(console) if console.is_terminal else LineReporter(console)
        with bad_input():
            chosen = ranks.of_first(wanted.checked)
            make = partial(Trainer.from_config, chosen, wanted.directory, reporter=reporter)
            trainer = ranks.together(make)
        _run(trainer, console, resume=resume, overwrite=overwrite)


@dataclass(frozen=True)
class _Wanted:
    """The run that a user asked for: the directory, and its options, the last of which count."""

    out: Path | None
    preset: str
    in_file: dict[str, Any]
    given: dict[str, Any]
    resume: bool
    overwrite: bool

    @property
    def directory(self) -> Path:
        """Where it goes. Raises ValueError if nobody said."""
        if self.out is None:
            raise ValueError("out: expected a directory, got none")
        return self.out

    def options(self) -> TrainConfig:
        """All options. Raises ValueError for one that cannot be, or has no effect.

        A file may have such options as they are by default: `--print-config` writes all.
        """
        started = {**options_of(self.preset), **self.in_file, **self.given}
        if self.resume:
            config = run_directory.resumable_by_name(self.directory, started)
        else:
            config = TrainConfig(**started)
        default = TrainConfig()
        meant = [name for name, value in self.in_file.items() if value != getattr(default, name)]
        check_effect(config, [*self.given, *meant])
        return config

    def checked(self) -> TrainConfig:
        """The same, where directory and machine can take it. Raises ValueError or OSError."""
        run_directory.check(self.directory, resume=self.resume, overwrite=self.overwrite)
        config = self.options()
        resolve_device(config.device)
        return config


def _check_processes(processes: int) -> None:
    """Raise ValueError unless so many can be started here."""
    check_count("processes", processes)
    if (started := started_with()) > 1 and processes > 1 and not launched():
        raise ValueError(
            f"processes: expected 1 under torchrun, which started {started}, got {processes}"
        )


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
    where = ", read from the file batch by batch" if trainer.batches.stored else ""
    return (
        f"{config.model}, {config.balancer}, {parameters:,} parameters, {device}; "
        f"{config.data}: {told(trainer.tasks)}, samples: {samples}{where}"
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
