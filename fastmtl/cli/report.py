"""`fastmtl report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastmtl.cli import options
from fastmtl.cli.errors import bad_input, failing, one_process, show
from fastmtl.cli.opening import SPLITS, check_writable, open_run
from fastmtl.data import MultiTaskData
from fastmtl.report import Frames
from fastmtl.report import report as make_report
from fastmtl.report.findings import SAMPLES
from fastmtl.training import RunError
from fastmtl.training.checkpoint import write_atomic
from fastmtl.training.inputs import split_rows
from fastmtl.training.options import check_choice


def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a run.")],
    data: options.Data,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")],
    test: options.Test = None,
    xml: options.Xml = None,
    split: Annotated[
        str | None,
        typer.Option(help="train, val, test or all samples.", show_default="test, else val"),
    ] = None,
    samples: Annotated[
        int, typer.Option(help="Samples whose attention and fusion are shown.", min=0)
    ] = SAMPLES,
    rows: Annotated[
        str | None,
        typer.Option(
            help="Rows of the samples to show, 3,17.", show_default="the surest hits and mistakes"
        ),
    ] = None,
    media: Annotated[
        Path | None,
        typer.Option(
            help="Manifest of the clips, as extract takes it: shows their frames and texts.",
            show_default="none",
        ),
    ] = None,
    overwrite: Annotated[bool, options.flag("--overwrite", "Replace the file.")] = False,
    memory: options.Memory = "auto",
    device: options.Device = "auto",
    threads: options.Threads = None,
) -> None:
    """Write one page that shows what a trained model learnt.

    Example: fastmtl report runs/first --data new.npz --out report.html
    """
    one_process()
    with bad_input():
        check_writable(out, overwrite=overwrite)
        chosen = _rows(rows)
        predictor, loaded = open_run(directory, data, test, xml, memory, device, threads, split)
        if not loaded.num_tasks:
            raise RunError(f"{data}: expected labels to report on, got none")
        split = split or ("test" if len(split_rows(loaded, "test")) else "val")
        check_choice("split", split, SPLITS)
        frames, captions = _of_media(media, loaded)
    with failing():
        page = make_report(
            directory,
            loaded,
            predictor=predictor,
            split=split,
            samples=samples,
            rows=chosen,
            frames=frames,
            captions=captions,
        )
        write_atomic(out, page)
    show(f"{len(split_rows(loaded, split)):,} {split} samples in {out}, {len(page) / 1e6:.1f} MB")


def _of_media(
    media: Path | None, data: MultiTaskData
) -> tuple[Frames | None, dict[str, str] | None]:
    """Pictures and texts of the clips, None of both without any."""
    if media is None:
        return None, None
    # Not with this module: those who have no clips need none of it.
    from fastmtl.report.media import captions_of, frames_of

    return frames_of(media, data), captions_of(media)


def _rows(given: str | None) -> list[int]:
    """Rows as they are typed."""
    parts = [part.strip() for part in (given or "").split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts):
        raise RunError(f"rows: expected numbers, 3,17, got {given!r}")
    return [int(part) for part in parts]
