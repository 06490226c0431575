"""The command line: train, evaluate, predict, reproduce, systems, info.

Exit codes: 0 done; 2 an option, a file or a directory that cannot be used, found before anything is
written; 1 a run that failed on the way (disk full, out of memory, loss not finite); 130 stopped by
SIGINT or SIGTERM. Each is told in one line on stderr. Anything else is a bug and shows a traceback.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import torch
import typer
from rich.console import Console

import fastmtl
from fastmtl import info as machine
from fastmtl.data import MultiTaskData
from fastmtl.reproduce import Plan, run_all, write_report
from fastmtl.reproduce.plan import parse_options
from fastmtl.reproduce.tables import (
    accuracy_cells,
    notes,
    results_cells,
    rich_table,
    systems_table,
)
from fastmtl.training import (
    BarReporter,
    DivergedError,
    Interrupted,
    LineReporter,
    Predictor,
    Reporter,
    RunError,
    TrainConfig,
    Trainer,
    load_data,
)
from fastmtl.training import directory as run_directory
from fastmtl.training.checkpoint import write_atomic
from fastmtl.training.config import check_effect, resolve_device
from fastmtl.training.factory import BALANCERS
from fastmtl.training.predictor import predictions_csv, split_rows
from fastmtl.training.report import results_table

FAILED, BAD_INPUT, STOPPED = 1, 2, 130
SPLITS = ("train", "val", "test", "all")
app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# Typer brings its own click or uses an installed one; both derive BadParameter from this.
_UsageError: Any = typer.BadParameter.__mro__[1]
_default = TrainConfig()


def _option(panel: str, name: str, text: str, *flags: str, default: str | None = None) -> Any:
    """A training option: TrainConfig knows its default, None says that it was not given."""
    value = getattr(_default, name) if default is None else default
    shown: Any = False if value is None else str(value)
    return typer.Option(*flags, help=text, show_default=shown, rich_help_panel=panel)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Train multi-task, multi-label and multimodal networks."""
    if version:
        typer.echo(f"fastmtl {fastmtl.__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
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
    """Train a model; results, weights and plots go to --out."""
    options = {field.name for field in dataclasses.fields(TrainConfig)}
    given = {k: v for k, v in locals().items() if k in options and v is not None}
    console = Console()
    reporter = BarReporter(console) if console.is_terminal else LineReporter(console)
    with _bad_input():
        run_directory.check(out, resume=resume, overwrite=overwrite)
        for name in ("data", "test", "xml"):
            if not given.get(name, "synthetic:").startswith("synthetic:"):
                given[name] = os.path.abspath(given[name])
        config = run_directory.resumed_config(out, given) if resume else TrainConfig(**given)
        check_effect(config, given)
        trainer = _make_trainer(config, out, reporter)
    metrics = _fit(trainer, resume=resume, overwrite=overwrite)
    console.print(results_table(metrics, _title(config)))
    training = metrics["training"]
    reporter.message(
        f"best epoch {training['best_epoch']} of {training['epochs']}, "
        f"{training['seconds_per_epoch']:.2f} s/epoch; results in {out}"
    )


@app.command()
def evaluate(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a run.")],
    data: Annotated[str, typer.Option(help="The data: what train's --data takes.")],
    test: Annotated[str | None, typer.Option(help="A second file, the test split.")] = None,
    xml: Annotated[str | None, typer.Option(help="The labels of a Mulan .arff file.")] = None,
    split: Annotated[
        str | None,
        typer.Option(help="train, val, test or all samples.", show_default="val and test"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads.", show_default="torch's choice")
    ] = None,
) -> None:
    """Measure a trained model on data with labels."""
    with _bad_input():
        predictor, loaded = _open(directory, data, test, xml, device, threads, split)
        if not loaded.num_tasks:
            raise RunError(f"{data}: expected labels to evaluate against, got none")
        splits = [split] if split else ["val", "test"]
        found = [name for name in splits if len(split_rows(loaded, name))]
        if not found:
            raise RunError(f"{data}: expected samples in {' or '.join(splits)}, got none")
    with _failing():
        metrics = {name: predictor.evaluate(loaded, name) for name in found}
    if as_json:
        typer.echo(json.dumps(metrics, indent=2))
    else:
        Console().print(results_table(metrics, _title(predictor.config)))


@app.command()
def predict(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a run.")],
    data: Annotated[str, typer.Option(help="The data, with or without labels.")],
    out: Annotated[Path, typer.Option(help="The CSV file to write.")],
    xml: Annotated[str | None, typer.Option(help="The labels of a Mulan .arff file.")] = None,
    split: Annotated[str, typer.Option(help="train, val, test or all samples.")] = "all",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads.", show_default="torch's choice")
    ] = None,
) -> None:
    """Write the probability and the decision for every sample and label to a CSV file."""
    with _bad_input():
        if out.is_dir() or not os.access(out.absolute().parent, os.W_OK | os.X_OK):
            raise RunError(f"{out}: expected a file in a writable directory")
        predictor, loaded = _open(directory, data, None, xml, device, threads, split)
    with _failing():
        probabilities = predictor.probabilities(loaded, split)
        rows = split_rows(loaded, split)
        write_atomic(out, predictions_csv(rows, probabilities, predictor.label_names))


@app.command()
def reproduce(
    table: Annotated[str, typer.Argument(help="mtmlan, hgfn or mtdnn: the paper.")],
    data: Annotated[str, typer.Option(help="The data: what train's --data takes.")],
    out: Annotated[Path, typer.Option(help="Directory for all runs and the tables.")],
    test: Annotated[str | None, typer.Option(help="A second file, the test split.")] = None,
    xml: Annotated[str | None, typer.Option(help="The labels of an .arff file.")] = None,
    modalities: Annotated[str | None, typer.Option(help="As train's --modalities.")] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each row.")] = 5,
    folds: Annotated[
        int, typer.Option(help="mtdnn: folds, in place of seeds; 1 for the file's split.")
    ] = 10,
    systems: Annotated[
        str | None,
        typer.Option(help="Rows, by name, comma-separated.", show_default="the paper's"),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="NAME=VALUE for every row that has it: epochs=20."),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Processes at a time.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of a run.", show_default="torch's choice")
    ] = None,
) -> None:
    """Train every row of a paper's table and compare; the same command goes on where it stopped."""
    console = Console()
    reporter = BarReporter(console) if console.is_terminal else Reporter()
    with _bad_input():
        plan = Plan(
            table,
            data=data if data.startswith("synthetic:") else os.path.abspath(data),
            test=None if test is None else os.path.abspath(test),
            xml=None if xml is None else os.path.abspath(xml),
            modalities=modalities,
            seeds=seeds,
            folds=folds,
            systems=systems.split(",") if systems else (),
            options=parse_options(option or []),
            device=device,
            threads=threads,
        )
        resolve_device(device)
        if jobs < 1:
            raise ValueError(f"jobs: expected an integer >= 1, got {jobs}")
        plan.check_directory(out)
        plan.load()
    try:
        with _failing():
            results = run_all(
                plan, out, jobs=jobs, say=LineReporter(console).message, reporter=reporter
            )
            comparison = write_report(plan, results, out)
    except Interrupted:
        _exit_with("stopped; the same command goes on from here", STOPPED)
    console.print(rich_table(results_cells(comparison), plan.paper.name))
    if cells := accuracy_cells(comparison):
        console.print(rich_table(cells, "accuracy by concept"))
    console.print(notes(comparison), f"Files in {out}.", highlight=False, markup=False)


@app.command()
def systems() -> None:
    """List every system of the papers: name, row, and what it is made of."""
    Console().print(systems_table())


@app.command()
def info() -> None:
    """Show versions, devices, and the backend that serves each op."""
    Console().print(machine.render())


def main() -> None:
    """Run the command line and exit the process."""
    try:
        code = app(prog_name="fastmtl", standalone_mode=False)
    except _UsageError as error:
        _exit_with(error.format_message(), BAD_INPUT)
    except (typer.Abort, KeyboardInterrupt):
        code = STOPPED
    if code == STOPPED:
        _exit_with("stopped", STOPPED)
    sys.exit(code or 0)


def _exit_with(message: str, code: int) -> NoReturn:
    typer.echo(f"fastmtl: {' '.join(message.split())}", err=True)
    sys.exit(code)


@contextmanager
def _bad_input() -> Iterator[None]:
    """While options and data are read: what does not fit is the user's to mend."""
    try:
        yield
    except (ValueError, OSError) as error:
        _exit_with(_as_option(str(error)), BAD_INPUT)


@contextmanager
def _failing() -> Iterator[None]:
    """While a run is under way: what the machine refuses ends it."""
    try:
        yield
    except (OSError, DivergedError) as error:
        _exit_with(_reason(error), FAILED)
    except RunError as error:
        _exit_with(str(error), BAD_INPUT)
    except torch.OutOfMemoryError as error:
        _exit_with(f"out of GPU memory, a smaller --batch-size may help ({error})", FAILED)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"cannot write {error.filename}: {error.strerror}"
    return str(error)


def _as_option(message: str) -> str:
    """Name an option as it is typed where a message begins with its name in Python."""
    name, colon, rest = message.partition(": ")
    name = "balance_at" if name == "where" else name
    if colon and any(field.name == name for field in dataclasses.fields(TrainConfig)):
        return f"--{name.replace('_', '-')}: {rest}"
    return message


def _title(config: TrainConfig) -> str:
    return f"{config.model}, {config.balancer}"


def _make_trainer(config: TrainConfig, out: Path, reporter: Reporter) -> Trainer:
    resolve_device(config.device)
    data = load_data(config, config.data, test=config.test, xml=config.xml)
    for warning in data.warnings:
        typer.echo(f"fastmtl: warning: {warning}", err=True)
    return Trainer.from_config(config, out, data, reporter=reporter)


def _fit(trainer: Trainer, *, resume: bool, overwrite: bool) -> dict[str, Any]:
    try:
        with _failing():
            return trainer.fit(resume=resume, overwrite=overwrite)
    except Interrupted:
        _exit_with(
            f"stopped after {trainer.progress.epoch} epochs; "
            f"continue with: fastmtl train --out {shlex.quote(str(trainer.out_dir))} --resume",
            STOPPED,
        )


def _open(
    directory: Path,
    data: str,
    test: str | None,
    xml: str | None,
    device: str,
    threads: int | None,
    split: str | None,
) -> tuple[Predictor, MultiTaskData]:
    """The trained model, and the data it is asked about."""
    if split is not None and split not in SPLITS:
        raise RunError(f"--split: expected one of {', '.join(SPLITS)}, got {split!r}")
    if threads is not None:
        if threads < 1:
            raise RunError(f"--threads: expected an integer >= 1, got {threads}")
        torch.set_num_threads(threads)
    predictor = Predictor.load(directory, device)
    loaded = load_data(predictor.config, data, test=test, xml=xml, for_training=False)
    predictor.check(loaded)
    return predictor, loaded
