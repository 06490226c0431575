"""`fastmtl extract`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastmtl.cli import media, options
from fastmtl.cli.errors import LastingConsole, bad_input, one_process, show
from fastmtl.media.encoders.named import choices
from fastmtl.media.extraction import Extraction
from fastmtl.media.manifest import MODALITIES, read_manifest
from fastmtl.media.options import ON_ERROR, Options
from fastmtl.media.sampling import Sampling
from fastmtl.training.precision import PRECISIONS


def _encoder(modality: str) -> typer.models.OptionInfo:
    found: typer.models.OptionInfo = typer.Option(
        help=f"The encoder of {modality}: {', '.join(choices(modality))}; see docs/media.md.",
        rich_help_panel="Encoders",
        show_default=False,
    )
    return found


Workers = Annotated[
    int | None, typer.Option(help="Decoding processes.", show_default="one a processor, at most 8")
]
OnError = Annotated[
    str,
    typer.Option(help=f"At a clip that cannot be used: {' or '.join(ON_ERROR)} (leave it out)."),
]
Timeout = Annotated[float, typer.Option(help="Seconds that a clip may take to be decoded.")]
BatchSize = Annotated[
    int, typer.Option(help="Frames, stretches of sound or texts that are encoded at a time.")
]
Precision = Annotated[
    str, typer.Option(help=f"In which networks compute: {', '.join(PRECISIONS)}.")
]


def extract(
    manifest: Annotated[
        Path, typer.Argument(metavar="MANIFEST", help="A table of clips: .csv, .tsv or .jsonl.")
    ],
    out: Annotated[Path, typer.Option(help="The file of features to write, in .h5.")],
    video: Annotated[str | None, _encoder("video")] = None,
    audio: Annotated[str | None, _encoder("audio")] = None,
    text: Annotated[str | None, _encoder("text")] = None,
    rate: Annotated[float, typer.Option(help="Frames a second.")] = Sampling.rate,
    frames: Annotated[
        int | None, typer.Option(help="Frames of each clip, in place of a rate.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="Of a file; what lies beyond is not read.")
    ] = Sampling.seconds,
    on_error: OnError = Options.on_error,
    overwrite: Annotated[
        bool, options.flag("--overwrite", "Replace the file, and what was begun for it.")
    ] = False,
    workers: Workers = None,
    batch_size: BatchSize = Options.batch_size,
    timeout: Timeout = Options.timeout,
    device: options.Device = "auto",
    precision: Precision = Options.precision,
) -> None:
    """Turn videos, sound and texts into a file of features.

    Example: fastmtl extract clips.csv --out clips.h5 --video pixels --audio stft --text hash
    """
    one_process()
    given = {"video": video, "audio": audio, "text": text}
    encoders = {m: spec for m in MODALITIES if (spec := given[m]) is not None}
    with bad_input():
        extraction = Extraction(
            read_manifest(manifest),
            out,
            encoders,
            Sampling(rate, frames, seconds),
            made(workers, batch_size, device, precision, on_error, timeout),
            overwrite=overwrite,
        )
    console = LastingConsole()
    result = media.run(extraction, console, going_on="the same command goes on from there")
    before = f", {result.resumed:,} taken up" if result.resumed else ""
    left_out = f", {len(result.skipped):,} left out" if result.skipped else ""
    sizes = ", ".join(f"{m} {encoder.size}" for m, encoder in extraction.encoders.items())
    clips = f"{result.written:,} clip{'s' * (result.written != 1)}"
    show(f"{clips} in {out}{before}{left_out}; features: {sizes}")


def made(
    workers: int | None,
    batch_size: int,
    device: str,
    precision: str,
    on_error: str,
    timeout: float,
) -> Options:
    """The options of an extraction. Raises ValueError for one that cannot be."""
    given = {} if workers is None else {"workers": workers}
    return Options(
        **given,
        batch_size=batch_size,
        device=device,
        precision=precision,
        on_error=on_error,
        timeout=timeout,
    )
