"""Small pictures out of the clips of a manifest, to stand under attention over time."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from fastmtl._text import short
from fastmtl.data import DataError, MultiTaskData
from fastmtl.media.container import need_av
from fastmtl.media.errors import MediaError
from fastmtl.media.frames import Picture, read_frames
from fastmtl.media.manifest import read_manifest
from fastmtl.media.sampling import Sampling
from fastmtl.report.attention import Frames
from fastmtl.report.inspected import Sample

HEIGHT, WIDTH = 72, 112
# Of a text.
LETTERS = 280


def frames_of(manifest: str | Path, data: MultiTaskData) -> Frames:
    """Pictures of the samples whose names are those of clips with a video in a manifest.

    A sample without such a clip, or with one that cannot be read, has no pictures.

    Args:
        manifest: as `fastmtl extract` takes it.
        data: with names of its samples, as `fastmtl extract` gives them.

    Raises:
        DataError: if the manifest cannot be used, or names no sample of the data.
        MediaError: without PyAV.
    """
    need_av()
    clips = {clip.name: clip.sources.get("video") for clip in read_manifest(manifest).clips}
    if not clips.keys() & set(data.sample_names or ()):
        expected = f"names of samples of {data.name}"
        raise DataError.at(str(manifest), "name", expected, "a manifest without any")

    def frames(sample: Sample, places: Sequence[float]) -> list[str]:
        path = clips.get(sample.name)
        if not isinstance(path, Path):
            return []
        try:
            piece = read_frames(path, Sampling(count=len(places)), Picture((HEIGHT, WIDTH), HEIGHT))
        except MediaError:
            return []
        return [_source(picture) for picture in piece.values]

    return frames


def captions_of(manifest: str | Path) -> dict[str, str]:
    """The beginning of the text of each clip of a manifest that has one, by the clip's name.

    Raises:
        DataError: if the manifest cannot be used.
    """
    found = {}
    for clip in read_manifest(manifest).clips:
        text = clip.sources.get("text")
        if isinstance(text, Path):
            text = _beginning(text)
        if text:
            found[clip.name] = short(" ".join(text.split()), LETTERS)
    return found


def _beginning(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(2 * LETTERS)
    except OSError:
        return ""


def _source(picture: Any) -> str:
    """A picture (H, W, 3) as the address of a JPEG that holds it."""
    import av

    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuvj420p")
    codec: Any = av.CodecContext.create("mjpeg", "w")
    codec.height, codec.width = picture.shape[:2]
    codec.pix_fmt, codec.time_base = "yuvj420p", Fraction(1, 1)
    content = b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
