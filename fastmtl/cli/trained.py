"""`fastmtl evaluate` and `fastmtl predict`: what a trained model does with data."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from fastmtl.cli import options
from fastmtl.cli.errors import TellingConsole, bad_input, failing, one_process, show
from fastmtl.cli.opening import STDOUT, check_writable, open_run
from fastmtl.data import MultiTaskData
from fastmtl.training import Predictor, RunError
from fastmtl.training.checkpoint import write_atomic
from fastmtl.training.inputs import split_rows
from fastmtl.training.options import check_choice
from fastmtl.training.predictions import predictions_csv, predictions_json
from fastmtl.training.report import results_table, told

DECIDED_BY = ("run", "tuned")

Thresholds = Annotated[
    str,
    typer.Option(
        help="What decides: the run's threshold, or one of each label, tuned on validation.",
        metavar="run|tuned",
    ),
]
Calibrated = Annotated[
    bool,
    options.flag(
        "--calibrated", "Divide logits by each label's temperature, fitted on validation."
    ),
]


def evaluate(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a run.")],
    data: options.Data,
    test: options.Test = None,
    xml: options.Xml = None,
    split: Annotated[
        str | None,
        typer.Option(help="train, val, test or all samples.", show_default="val and test"),
    ] = None,
    thresholds: Thresholds = "run",
    calibrated: Calibrated = False,
    as_json: Annotated[bool, options.flag("--json", "Print JSON, not a table.")] = False,
    memory: options.Memory = "auto",
    device: options.Device = "auto",
    threads: options.Threads = None,
) -> None:
    """Measure a trained model on data with labels.

    Example: fastmtl evaluate runs/first --data new.npz --split all
    """
    with bad_input():
        predictor, loaded = open_run(directory, data, test, xml, memory, device, threads, split)
        if not loaded.num_tasks:
            raise RunError(f"{data}: expected labels to evaluate against, got none")
        splits = [split] if split else ["val", "test"]
        found = [name for name in splits if len(split_rows(loaded, name))]
        if not found:
            raise RunError(f"{data}: expected samples in {' or '.join(splits)}, got none")
        told, predictor = _tuned(predictor, loaded, thresholds, calibrated=calibrated)
    with failing():
        metrics = {name: predictor.evaluate(loaded, name) for name in found}
        if calibrated:
            for name in found:
                metrics[name] |= predictor.calibration(loaded, name)
    if as_json:
        show(json.dumps(metrics, indent=2, allow_nan=False))
    else:
        console = TellingConsole()
        console.print(results_table(metrics, predictor.title))
        console.print(_measured(loaded, found), highlight=False)
        if told:
            console.print(told, highlight=False)


def predict(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a run.")],
    out: Annotated[
        Path,
        typer.Option(help="The file to write: JSON if it ends in .json, else CSV; - to print it."),
    ],
    data: Annotated[
        str | None,
        typer.Option(help="The data, with or without labels.", show_default="required, or --media"),
    ] = None,
    media: Annotated[
        Path | None,
        typer.Option(
            help="Raw files: a manifest as extract takes it, for the run's own encoders.",
            show_default="none",
        ),
    ] = None,
    on_error: Annotated[
        str, typer.Option(help="At a clip of --media that cannot be used: stop or skip.")
    ] = "stop",
    xml: options.Xml = None,
    split: Annotated[str, typer.Option(help="train, val, test or all samples.")] = "all",
    thresholds: Thresholds = "run",
    calibrated: Calibrated = False,
    overwrite: Annotated[bool, options.flag("--overwrite", "Replace the file.")] = False,
    memory: options.Memory = "auto",
    device: options.Device = "auto",
    threads: options.Threads = None,
) -> None:
    """Write the probability and the decision for every sample and label to a file.

    Example: fastmtl predict runs/first --data new.npz --out new.csv
    """
    one_process()
    with bad_input():
        check_writable(out, overwrite=overwrite)
        if (data is None) == (media is None):
            raise ValueError("data: expected either it or --media, got both or neither")
    with _features(directory, data, media, on_error, device) as source:
        with bad_input():
            predictor, loaded = open_run(
                directory, source, None, xml, memory, device, threads, split, labels=False
            )
            _, predictor = _tuned(predictor, loaded, thresholds, calibrated=calibrated)
        _write_predictions(predictor, loaded, split, out)


def _features(
    directory: Path, data: str | None, media: Path | None, on_error: str, device: str
) -> AbstractContextManager[str]:
    """The data that was named, or a file of features out of a manifest, while it is needed."""
    if media is None:
        return nullcontext(str(data))
    # Not with this module: those who have features need none of it.
    from fastmtl.cli.media import features_of

    return features_of(directory, media, on_error=on_error, device=device)


def _write_predictions(predictor: Predictor, loaded: MultiTaskData, split: str, out: Path) -> None:
    with failing():
        probabilities = predictor.probabilities(loaded, split)
        rows = split_rows(loaded, split)
        written = predictions_json if out.suffix.lower() == ".json" else predictions_csv
        tasks, names = predictor.tasks, loaded.names_of(rows)
        text = written(rows, probabilities, tasks, predictor.threshold, names)
        if out == STDOUT:
            show(text, nl=False)
            return
        write_atomic(out, text)
    show(f"{len(rows):,} samples, {told(tasks)} in {out}")


def _tuned(
    predictor: Predictor, data: MultiTaskData, thresholds: str, *, calibrated: bool
) -> tuple[str, Predictor]:
    """The model as it is to decide, and on which samples that was fitted.

    A run that stored nothing, since it was interrupted or is of an earlier version, is fitted on
    the validation split of the data.
    """
    check_choice("thresholds", thresholds, DECIDED_BY)
    if thresholds == "run" and not calibrated:
        return "", predictor
    tuning, where = predictor.tuning, "the run's validation split"
    if tuning is None:
        if not data.num_tasks or not len(data.indices("val")):
            got = f"a run that stored none, and no labelled samples in val of {data.name}"
            raise RunError(f"thresholds: expected thresholds by label, got {got}")
        tuning, where = predictor.tune(data), f"the val samples of {data.name}"
    fitted = ["thresholds"] * (thresholds == "tuned") + ["temperatures"] * calibrated
    told = f"{' and '.join(fitted)} by label fitted on {where}, where figures are too good"
    return told, predictor.tuned(tuning, thresholds=thresholds == "tuned", calibrated=calibrated)


def _measured(data: MultiTaskData, splits: list[str]) -> str:
    """Of how many samples the figures are: without a split in the file, not of all."""
    parts = " and ".join(f"{len(split_rows(data, split)):,} {split}" for split in splits)
    return f"{parts} of {len(data):,} samples"
