"""`fastmtl train`."""

from __future__ import annotations

import dataclasses
import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from fastmtl.cli.errors import STOPPED, bad_input, exit_with, failing, warn
from fastmtl.training import (
    BarReporter,
    Interrupted,
    LineReporter,
    Reporter,
    TrainConfig,
    Trainer,
    load_data,
)
from fastmtl.training import directory as run_directory
from fastmtl.training.config import check_effect, resolve_device
from fastmtl.training.factory import BALANCERS
from fastmtl.training.report import results_table

_default = TrainConfig()


def _option(panel: str, name: str, text: str, *flags: str, default: str | None = None) -> Any:
    """A training option: TrainConfig knows its default, None says that it was not given."""
    value = getattr(_default, name) if default is None else default
    shown: Any = False if value is None else str(value)
    return typer.Option(*flags, help=text, show_default=shown, rich_help_panel=panel)


def train(
    out: Annotated[Path, typer.Option(help="Directory for everything the run writes.")],
    model: Annotated[
        str | None,
        _option(
            "Model",
            "model",
            "mtmlan, cmlc (sequences); hgfn, cfc, matf, gfn (modalities).",
        ),
    ] = None,
    balancer: Annotated[
        str | None, _option("Balancing", "balancer", f"{', '.join(BALANCERS)}.")
    ] = None,
    data: Annotated[
        str | None,
        _option("Data", "data", "A .npz, .h5 or .arff file, or synthetic:NAME[?option=value]."),
    ] = None,
    test: Annotated[str | None, _option("Data", "test", "A second file, the test split.")] = None,
    xml: Annotated[str | None, _option("Data", "xml", "The labels of a Mulan .arff file.")] = None,
    modalities: Annotated[
        str | None,
        _option("Data", "modalities", "Keep (text,audio) or cut columns (text=0:79,audio=79:103)."),
    ] = None,
    standardize: Annotated[
        bool | None,
        _option(
            "Data",
            "standardize",
            "Scale features by the training split's mean and deviation.",
            "--standardize/--no-standardize",
            default="standardize",
        ),
    ] = None,
    epochs: Annotated[int | None, _option("Training", "epochs", "Epochs at most.")] = None,
    batch_size: Annotated[
        int | None, _option("Training", "batch_size", "Samples in a step.")
    ] = None,
    lr: Annotated[float | None, _option("Training", "lr", "Learning rate of Adam.")] = None,
    gamma: Annotated[
        float | None, _option("Training", "gamma", "Focusing parameter of the focal loss.")
    ] = None,
    patience: Annotated[
        int | None,
        _option("Training", "patience", "Epochs without a better one before stopping."),
    ] = None,
    monitor: Annotated[
        str | None,
        _option("Training", "monitor", "What makes an epoch better: val loss, map or micro_f1."),
    ] = None,
    clip_grad_norm: Annotated[
        float | None,
        _option(
            "Training", "clip_grad_norm", "Bound of the global gradient norm.", default="no bound"
        ),
    ] = None,
    seed: Annotated[
        int | None,
        _option("Training", "seed", "Fixes split, initial weights, order of samples, dropout."),
    ] = None,
    alpha: Annotated[
        float | None,
        _option("Balancing", "alpha", "gradnorm, tdb, dmtl: exponent of the relative losses."),
    ] = None,
    balance_lr: Annotated[
        float | None,
        _option(
            "Balancing", "balance_lr", "gradnorm, tdb, dmtl, famo: step size of the task weights."
        ),
    ] = None,
    balance_at: Annotated[
        str | None,
        _option(
            "Balancing",
            "balance_at",
            "gradnorm, tdb, dmtl: layer of the gradient norms: shared, first, last.",
            default="shared, else first",
        ),
    ] = None,
    imbalance_penalty: Annotated[
        bool | None,
        _option(
            "Balancing",
            "imbalance_penalty",
            "tdb, dmtl: weigh tasks by the inverse of their share of positives.",
            "--imbalance-penalty/--no-imbalance-penalty",
            default="imbalance-penalty",
        ),
    ] = None,
    hidden_size: Annotated[
        int | None, _option("Model", "hidden_size", "Width of the hidden layers.")
    ] = None,
    attention_size: Annotated[
        int | None, _option("Model", "attention_size", "Width of the attention over time.")
    ] = None,
    num_layers: Annotated[
        int | None,
        _option("Model", "num_layers", "Layers of the GRUs.", default="mtmlan 2, hgfn 1"),
    ] = None,
    shared_features: Annotated[
        int | None,
        _option(
            "Model", "shared_features", "mtmlan: width of a trainable shared layer.", default="none"
        ),
    ] = None,
    dropout: Annotated[float | None, _option("Model", "dropout", "Dropout probability.")] = None,
    theta: Annotated[
        float | None,
        _option("Model", "theta", "hgfn: offset of the similarity in the edge weights."),
    ] = None,
    max_level: Annotated[
        int | None, _option("Model", "max_level", "hgfn: levels of fusion.")
    ] = None,
    head_size: Annotated[
        int | None, _option("Model", "head_size", "Modalities: width of the task heads.")
    ] = None,
    interaction: Annotated[
        bool | None,
        _option(
            "Model",
            "interaction",
            "Modalities: let the tasks exchange features, as MTI-Net does.",
            "--interaction/--no-interaction",
            default="no-interaction",
        ),
    ] = None,
    device: Annotated[str | None, _option("Run", "device", "auto, cpu, cuda or cuda:N.")] = None,
    threads: Annotated[
        int | None, _option("Run", "threads", "CPU threads.", default="torch's choice")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out.", rich_help_panel="Run")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run in --out.", rich_help_panel="Run")
    ] = False,
) -> None:
    """Train a model; results, weights and plots go to --out.

    Example: fastmtl train --model mtmlan --data clips.npz --out runs/first
    """
    options = {field.name for field in dataclasses.fields(TrainConfig)}
    given = {k: v for k, v in locals().items() if k in options and v is not None}
    console = Console()
    reporter = BarReporter(console) if console.is_terminal else LineReporter(console)
    with bad_input():
        run_directory.check(out, resume=resume, overwrite=overwrite)
        for name in ("data", "test", "xml"):
            if not given.get(name, "synthetic:").startswith("synthetic:"):
                given[name] = os.path.abspath(given[name])
        config = run_directory.resumed_config(out, given) if resume else TrainConfig(**given)
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
    data = load_data(config, config.data, test=config.test, xml=config.xml)
    for warning in data.warnings:
        warn(warning)
    return Trainer.from_config(config, out, data, reporter=reporter)


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
