"""The sound of media files. Runs in decoding processes, so it loads no PyTorch."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from fastmtl.media.container import check_whole, first_stream, opened
from fastmtl.media.errors import MediaError
from fastmtl.media.piece import Array, Piece

NO_SOUND = "holds no sound"
# Samples of a channel that are mixed and resampled at a time: as many as a cache holds.
_AT_ONCE = 1 << 13


def read_sound(path: Path, rate: int, seconds: float) -> Piece:
    """The sound of a file, the mean of its channels, at `rate`: (S,) float32.

    Raises:
        MediaError: for a file without sound, or one that is broken.
    """
    with opened(path) as container:
        stream = first_stream(container, "audio", NO_SOUND)
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
    FFmpeg gathers them, and mixes and resamples many at a time.
    """

    def __init__(self, rate: int) -> None:
        self.seconds = 0.0
        self._rate = rate
        self._form: tuple[str, int, int] | None = None
        self._waiting: Any = None
        self._graph: Any = None
        self._done: list[Array] = []

    def add(self, frame: Any) -> None:
        """Keep a frame."""
        import av

        form = frame.format.name, frame.sample_rate, frame.layout.nb_channels
        if form != self._form:
            self._mix(last=True)
            self._form, self._graph = form, _mixer(frame, self._rate)
            self._waiting = av.AudioFifo()
        self.seconds += frame.samples / form[1]
        # Frames follow each other, whatever times the file gives them.
        frame.pts = None
        self._waiting.write(frame)
        if self._waiting.samples > _AT_ONCE:
            self._mix()

    def finished(self) -> Array:
        """All of it, (S,) float32."""
        self._mix(last=True)
        return np.concatenate(self._done) if self._done else np.zeros(0, np.float32)

    def _mix(self, *, last: bool = False) -> None:
        """Mix and resample what waits; `last` gives what the resampler still holds, too."""
        if self._form is None:
            return
        if frame := self._waiting.read():
            self._graph.push(frame)
        if last:
            self._graph.push(None)
        with contextlib.suppress(BlockingIOError, EOFError):
            while True:
                mixed = self._graph.pull()
                # A copy, since FFmpeg writes into its frames again.
                self._done.append(np.frombuffer(mixed.planes[0], np.float32, mixed.samples).copy())


def _mixer(frame: Any, rate: int) -> Any:
    """A graph that makes the mean of the channels of such frames, at a rate."""
    from av.filter import Graph

    channels = frame.layout.nb_channels
    mean = "+".join(f"{1 / channels!r}*c{channel}" for channel in range(channels))
    graph = Graph()
    nodes = (
        graph.add_abuffer(
            sample_rate=frame.sample_rate,
            format=frame.format.name,
            layout=frame.layout.name,
            time_base=Fraction(1, frame.sample_rate),
        ),
        graph.add("aformat", "sample_fmts=fltp"),
        graph.add("pan", f"mono|c0={mean}"),
        graph.add("aresample", str(rate)),
        graph.add("abuffersink"),
    )
    graph.link_nodes(*nodes).configure()
    return graph
