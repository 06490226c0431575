"""An extraction under way on the command line: its progress, and how it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from fastmtl.cli.errors import STOPPED, LastingConsole, bad_input, exit_with, failing, warn_of
from fastmtl.data.provenance import check_encoders
from fastmtl.media.encoders.named import sampling_of
from fastmtl.media.errors import BrokenClip
from fastmtl.media.extraction import Extracted, Extraction
from fastmtl.media.manifest import MODALITIES, read_manifest
from fastmtl.media.options import Options
from fastmtl.training import RunError
from fastmtl.training import directory as run_directory
from fastmtl.training.signals import Interrupted, stop_on_signals

# Between the lines of one who does not watch.
_SECONDS = 10.0


def run(extraction: Extraction, console: LastingConsole, *, going_on: str) -> Extracted:
    """Do an extraction, and tell of it; `going_on` is how to continue it.

    Exits where it is stopped, by the user or by a clip that cannot be used.
    """
    total = len(extraction.manifest.clips)
    begun = _bar if console.is_terminal else _lines
    done = 0

    def follow(count: int) -> None:
        nonlocal done
        done = count
        told(count)

    with stop_on_signals() as stop, begun(console, total) as told, failing():
        try:
            result = extraction.run(follow, stop)
        except BrokenClip as error:
            raise OSError(f"{error} ({done:,} of {total:,} clips are done; {going_on})") from error
        except Interrupted:
            exit_with(f"stopped after {done:,} of {total:,} clips; {going_on}", STOPPED)
    warn_of([f"left out {line}" for line in result.skipped])
    warn_of(result.warnings)
    return result


@contextmanager
def features_of(directory: Path, manifest: Path, *, on_error: str, device: str) -> Iterator[str]:
    """A file of features for a run out of raw media, by the encoders that its own came from.

    It is there inside the block.
    """
    with TemporaryDirectory() as folder:
        with bad_input():
            encoders = run_directory.read(directory).data.get("encoders")
            if not encoders:
                raise RunError(
                    f"{directory}: was not trained on features of fastmtl extract, so nobody knows "
                    "its encoders (--data takes features)"
                )
            # What it has no column of is missing in its clips, as what their rows leave empty is.
            clips = replace(read_manifest(manifest, labels=False), modalities=[*MODALITIES])
            extraction = Extraction(
                clips,
                Path(folder, "features.h5"),
                {modality: each["encoder"] for modality, each in encoders.items()},
                sampling_of(encoders),
                Options(on_error=on_error, device=device),
            )
            check_encoders(str(manifest), extraction.provenance, encoders)
        # What is printed may be the table itself.
        console = LastingConsole(stderr=True)
        run(extraction, console, going_on="--on-error skip leaves it out")
        yield str(extraction.out)


class _Rate(ProgressColumn):
    """Clips a second."""

    def render(self, task: Task) -> Text:
        """The column of a bar."""
        return Text("" if task.speed is None else f"{task.speed:.1f} clips/s")


@contextmanager
def _bar(console: LastingConsole, total: int) -> Iterator[Any]:
    columns = (BarColumn(bar_width=None), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(TextColumn("clips"), *columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def _lines(console: LastingConsole, total: int) -> Iterator[Any]:
    """A line now and then, with rate and time left."""
    begun = shown = time.monotonic()
    before: int | None = None

    def told(done: int) -> None:
        nonlocal shown, before
        before = done if before is None else before
        now = time.monotonic()
        if now - shown < _SECONDS or done == before:
            return
        shown, rate = now, (done - before) / (now - begun)
        left = f"{(total - done) / rate:,.0f} s left"
        console.print(f"{done:,} of {total:,} clips, {rate:.1f} clips/s, {left}", highlight=False)

    yield told
