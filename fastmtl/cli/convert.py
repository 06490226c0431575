"""`fastmtl convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastmtl.cli import options
from fastmtl.cli.errors import bad_input, failing, one_process, show
from fastmtl.convert import LAYOUTS, choose
from fastmtl.convert import convert as write


def convert(
    layout: Annotated[
        str,
        typer.Argument(
            metavar="LAYOUT",
            help=f"{', '.join(LAYOUTS)}.",
            autocompletion=options.completion(LAYOUTS),
        ),
    ],
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="The file or directory as it is published.")
    ],
    out: Annotated[
        Path,
        typer.Option(help="The file to write: .h5, or a manifest .csv for fastmtl extract."),
    ],
    table: Annotated[
        Path | None,
        typer.Option(help="Of video-folders: the concepts.", show_default="the one in SOURCE"),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Of crisismmd: where data_image is.", show_default="SOURCE"),
    ] = None,
    xml: Annotated[
        Path | None, typer.Option(help="Of mulan-bags: the labels.", show_default="X.xml")
    ] = None,
    vocabulary: Annotated[
        Path | None,
        typer.Option(
            help="Of youtube-8m: the labels' names.", show_default="vocabulary.csv in SOURCE"
        ),
    ] = None,
    labels: Annotated[
        int | None,
        typer.Option(help="Of youtube-8m: the first so many labels.", show_default="all"),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="Of the features in an .h5: float32, float16.", show_default="float32"),
    ] = None,
    overwrite: Annotated[bool, options.flag("--overwrite", "Replace the file.")] = False,
) -> None:
    """Convert a published data set to a data file, or to a manifest to extract features by.

    Example: fastmtl convert youtube-8m yt8m/frame --labels 100 --out yt8m.h5
    """
    one_process()
    given = {
        "table": table,
        "images": images,
        "xml": xml,
        "vocabulary": vocabulary,
        "labels": labels,
        "dtype": dtype,
        "overwrite": overwrite,
    }
    with bad_input():
        choose(layout, given)
    with failing():
        told = write(layout, source, out, **given)
    for line in [*told, f"written to {out}"]:
        show(line)
