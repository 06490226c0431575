"""`fastmtl export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastmtl.cli import options
from fastmtl.cli.errors import BadInput, bad_input, failing, show
from fastmtl.cli.opening import check_writable
from fastmtl.training import Predictor
from fastmtl.training.report import told


def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a run.")],
    out: Annotated[Path, typer.Option(help="The file to write: NAME.onnx, .pt2 or .safetensors.")],
    format: Annotated[
        str | None,
        typer.Option(help="onnx, pt2 or safetensors.", show_default="as the file's suffix says"),
    ] = None,
    missing: Annotated[
        bool, options.flag("--missing", "Take samples that lack modalities (rows of NaN).")
    ] = False,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Steps of every sequence, written out for AOTInductor (.pt2).",
            show_default="any number",
        ),
    ] = None,
    overwrite: Annotated[bool, options.flag("--overwrite", "Replace the file.")] = False,
) -> None:
    """Write a trained model to an ONNX, .pt2 or safetensors file.

    Example: fastmtl export runs/first --out first.onnx
    """
    from fastmtl.export import export as write
    from fastmtl.export.write import check_missing, check_steps, format_of

    with bad_input():
        try:
            kind = format_of(out, format)
        except ImportError as error:
            raise BadInput(str(error)) from error
        check_writable(out, overwrite=overwrite)
        predictor = Predictor.load(directory, "cpu")
        if missing:
            check_missing(kind, len(predictor.description["features"]))
        if steps is not None:
            check_steps(kind, len(predictor.description["sequences"]))
    with failing():
        facts = write(predictor, out, kind, missing=missing, steps=steps)
    inputs = ", ".join(facts["inputs"])
    show(f"{out}: from {inputs} to the probabilities of {told(predictor.tasks)}")
