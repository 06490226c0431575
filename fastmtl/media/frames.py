"""Frames of videos, and still pictures. Runs in decoding processes, so it loads no PyTorch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastmtl.media.container import check_whole, first_stream, opened, shown_until
from fastmtl.media.errors import MediaError
from fastmtl.media.piece import Array, Piece
from fastmtl.media.sampling import Sampling, on_screen

_MOST_PIXELS = 1 << 26


@dataclass(frozen=True)
class Picture:
    """The form in which frames are handed over: scaled, then cropped in the middle.

    Args:
        crop: height and width of what is handed over.
        shorter: what the shorter side is scaled to first; without it the frame is scaled to `crop`
            whatever its form.
        filter: of the scaling: NEAREST, BILINEAR, BICUBIC, LANCZOS or AREA.
    """

    crop: tuple[int, int]
    shorter: int | None = None
    filter: str = "BICUBIC"

    def scaled(self, height: int, width: int) -> tuple[int, int]:
        """What a frame of this size is scaled to."""
        if self.shorter is None:
            return self.crop
        ratio = self.shorter / min(height, width)
        size = round(height * ratio), round(width * ratio)
        return max(size[0], self.crop[0]), max(size[1], self.crop[1])


def read_frames(path: Path, sampling: Sampling, picture: Picture) -> Piece:
    """The sampled frames of a video, or the one of a still picture: (L, H, W, 3) uint8.

    Raises:
        MediaError: for a file without pictures, or one that is broken.
    """
    with opened(path) as container:
        stream = first_stream(container, "video", "holds no pictures")
        if stream.codec_context.width * stream.codec_context.height > _MOST_PIXELS:
            size = f"{stream.codec_context.width} x {stream.codec_context.height}"
            raise MediaError(f"expected frames of at most {_MOST_PIXELS:,} pixels, got {size}")
        end = _End(sampling.seconds)
        duration = math.inf if sampling.count is None else shown_until(container, stream)
        convert = _Converter(picture)
        taken: list[Array] = []
        shown = on_screen(
            end.passing(container.decode(stream)), lambda time: sampling.before(time, duration)
        )
        for frame, times in shown:
            taken += [convert(frame)] * times
        check_whole(container, stream, end.time, sampling.seconds)
    if not taken:
        raise MediaError("holds no picture that can be decoded")
    return Piece(np.stack(taken[:1] if end.frames == 1 else taken), end.beyond)


class _End:
    """Follows frames to the end of the file, or of what is wanted of it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.frames = 0
        self.time = 0.0
        self.beyond = False

    def passing(self, frames: Iterator[Any]) -> Iterator[tuple[float, Any]]:
        """The frames with their times, which ascend, and None at the end."""
        length = 0.0
        for frame in frames:
            time = frame.time
            self.time = max(self.time, self.time + length if time is None else time)
            if self.time >= self.seconds:
                self.beyond = True
                break
            self.frames += 1
            length = _length(frame)
            yield self.time, frame
        self.time += 0.0 if self.beyond else length
        yield min(self.time, self.seconds), None


def _length(frame: Any) -> float:
    """How long a frame lasts, 0 where it does not say."""
    return float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0


class _Converter:
    """Frames as arrays, all of one form."""

    def __init__(self, picture: Picture) -> None:
        from av.video.reformatter import VideoReformatter

        self.picture = picture
        self._reformatter = VideoReformatter()

    def __call__(self, frame: Any) -> Array:
        """(H, W, 3) uint8, upright: a phone writes how it was held beside the pictures."""
        turns = round(frame.rotation / 90) % 4
        size = frame.height, frame.width
        height, width = self.picture.scaled(*(size[::-1] if turns % 2 else size))
        if turns % 2:
            height, width = width, height
        scaled = self._reformatter.reformat(
            frame, width, height, format="rgb24", interpolation=self.picture.filter
        ).to_ndarray()
        scaled = np.rot90(scaled, turns)
        height, width = scaled.shape[:2]
        rows, columns = self.picture.crop
        top, left = (height - rows) // 2, (width - columns) // 2
        return np.ascontiguousarray(scaled[top : top + rows, left : left + columns])
