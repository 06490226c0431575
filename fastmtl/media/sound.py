"""The sound of media files. Runs in decoding processes, so it loads no PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fastmtl.media.container import check_whole, first_stream, opened
from fastmtl.media.errors import MediaError
from fastmtl.media.piece import Array, Piece

NO_SOUND = "holds no sound"
# Samples of a channel that are mixed and resampled at a time: as many as a cache holds. With twenty
# seconds at once the resampler took three times as long.
_AT_ONCE = 1 << 15


def read_sound(path: Path, rate: int, seconds: float) -> Piece:
    """The sound of a file, the mean of its channels, at `rate`: (S,) float32.

    Raises:
        MediaError: for a file without sound, or one that is broken.
    """
    with opened(path) as container:
        stream = first_stream(container.streams.audio, NO_SOUND)
        sound = _Sound(rate)
        for frame in container.decode(stream):
            sound.add(frame)
            if sound.seconds > seconds:
                break
        check_whole(container, stream, sound.seconds, seconds)
        values, most = sound.finished(), round(seconds * rate)
    if not values.size:
        raise MediaError("holds no sound that can be decoded")
    if not np.isfinite(values).all():
        raise MediaError("holds sound that is not finite")
    return Piece(values[:most], len(values) > most)


class _Sound:
    """Frames of sound on their way to one channel at a rate.

    A frame is about 20 ms, and what Python does for each of them costs as much as decoding it: so
    their channels are kept as they are, and mixed and resampled many at a time.
    """

    def __init__(self, rate: int) -> None:
        self.seconds = 0.0
        self._rate = rate
        self._form: tuple[str, int, int] | None = None
        self._waiting: list[list[Array]] = []
        self._count = 0
        self._done: list[Array] = []
        self._resampler: Any = None

    def add(self, frame: Any) -> None:
        """Keep a frame."""
        form = frame.format.name, frame.sample_rate, len(frame.planes)
        if form != self._form:
            self._mix(last=True)
            self._form = form
        planes = frame.planes
        if form[0] == "fltp":
            channels = [np.frombuffer(plane, np.float32, frame.samples) for plane in planes]
        else:
            channels = list(_as_floats(frame))
        self._waiting.append(channels)
        self._count += frame.samples
        self.seconds += frame.samples / form[1]
        if self._count > _AT_ONCE:
            self._mix()

    def finished(self) -> Array:
        """All of it, (S,) float32."""
        self._mix(last=True)
        return np.concatenate(self._done) if self._done else np.zeros(0, np.float32)

    def _mix(self, *, last: bool = False) -> None:
        """Mix and resample what waits; `last` gives what the resampler still holds, too."""
        if self._form is None:
            return
        _, rate, _ = self._form
        if self._waiting:
            channels = [np.concatenate(each) for each in zip(*self._waiting, strict=True)]
            mixed = channels[0] if len(channels) == 1 else sum(channels) / np.float32(len(channels))
            self._done += self._resampled(mixed, rate)
        if last and self._resampler is not None:
            self._done += _values(self._resampler.resample(None))
            self._resampler = None
        self._waiting, self._count = [], 0

    def _resampled(self, mixed: Array, rate: int) -> list[Array]:
        import av

        if rate == self._rate:
            return [mixed]
        self._resampler = self._resampler or av.AudioResampler("fltp", "mono", self._rate)
        frame = av.AudioFrame.from_ndarray(mixed[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        return _values(self._resampler.resample(frame))


def _values(frames: list[Any]) -> list[Array]:
    return [np.frombuffer(each.planes[0], np.float32, each.samples).copy() for each in frames]


def _as_floats(frame: Any) -> Array:
    """The channels (C, S) of a frame of any format, in [-1, 1] where it holds integers."""
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(frame.samples, -1).T
    if values.dtype.kind == "f":
        return np.asarray(values, np.float32)
    info = np.iinfo(values.dtype)
    middle = 0 if info.min else (info.max + 1) / 2
    scaled: Array = ((values - middle) / (info.max + 1 - middle)).astype(np.float32)
    return scaled
