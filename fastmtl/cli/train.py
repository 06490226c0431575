"""`fastmtl train`."""

from __future__ import annotations

import os
import shlex
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
    one_process,
    warn_of,
)
from fastmtl.training import (
    BarReporter,
    Interrupted,
    LineReporter,
    Reporter,
    TrainConfig,
    Trainer,
)
from fastmtl.training import directory as run_directory
from fastmtl.training.config import check_effect, resolve_device
from fastmtl.training.presets import PRESETS
from fastmtl.training.presets import preset as options_of
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
    **given: Any,
) -> None:
    """Train a model; results, weights and plots go to --out.

    Example: fastmtl train --model mtmlan --data clips.npz --out runs/first
    """
    given = {name: value for name, value in given.items() if value is not None}
    one_process()
    console = LastingConsole()
    reporter = BarReporter(console) if console.is_terminal else LineReporter(console)
    with bad_input():
        run_directory.check(out, resume=resume, overwrite=overwrite)
        for name in ("data", "test", "xml"):
            if not given.get(name, "synthetic:").startswith("synthetic:"):
                given[name] = os.path.abspath(given[name])
        started = {**options_of(preset), **given}
        config = run_directory.resumable_by_name(out, started) if resume else TrainConfig(**started)
        check_effect(config, given)
        trainer = _make_trainer(config, out, reporter)
    reporter.message(_description(trainer))
    metrics = _fit(trainer, resume=resume, overwrite=overwrite)
    console.print(results_table(metrics, f"{config.model}, {config.balancer}"))
    training = metrics["training"]
    reporter.message(
        f"best epoch {training['best_epoch']} of {training['epochs']}, "
        f"{training['seconds_per_epoch']:.2f} s/epoch; results in {out}"
    )


def _make_trainer(config: TrainConfig, out: Path, reporter: Reporter) -> Trainer:
    resolve_device(config.device)
    trainer = Trainer.from_config(config, out, reporter=reporter)
    warn_of(trainer.warnings)
    return trainer


def _description(trainer: Trainer) -> str:
    """What is about to be trained, on what."""
    config, rows = trainer.config, trainer.rows
    samples = ", ".join(f"{len(rows[split]):,} {split}" for split in ("train", "val", "test"))
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    return (
        f"{config.model}, {config.balancer}, {parameters:,} parameters, {trainer.device}; "
        f"{config.data}: {len(trainer.label_names)} labels, samples: {samples}"
    )


def _fit(trainer: Trainer, *, resume: bool, overwrite: bool) -> dict[str, Any]:
    try:
        with failing():
            return trainer.fit(resume=resume, overwrite=overwrite)
    except Interrupted:
        exit_with(
            f"stopped after {trainer.progress.epoch} epochs; "
            f"continue with: fastmtl train --out {shlex.quote(str(trainer.out_dir))} --resume",
            STOPPED,
        )
