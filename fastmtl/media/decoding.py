"""Frames and sound of media files, by PyAV. Runs in decoding processes, so it loads no PyTorch."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastmtl.media.errors import MediaError
from fastmtl.media.sampling import Sampling, on_screen

Array = NDArray[Any]
# What holds pictures and sound. FFmpeg also plays text files, playlists that name other files and
# addresses, and devices: none of these is what a manifest means.
_FORMATS = (
    "3dostr,aac,ac3,aiff,amr,amrnb,amrwb,apng,asf,au,avi,bmp_pipe,caf,dts,dv,eac3,flac,flv,gif,"
    "h264,hevc,image2,ivf,jpeg_pipe,jpegxl_pipe,m4v,matroska,webm,mjpeg,mov,mp4,m4a,3gp,3g2,mj2,"
    "mp3,mpeg,mpegts,mpegvideo,mxf,nut,obu,av1,ogg,png_pipe,rm,tiff_pipe,tta,w64,wav,webp_pipe,wtv,"
    "wv,yuv4mpegpipe"
)
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "file", "pattern_type": "none"}
_MOST_PIXELS = 1 << 26
NO_SOUND = "holds no sound"
# An index may say a little more than there is; a file that ends long before was cut short.
_SLACK = 1.0, 0.1
# Samples of a channel that are mixed and resampled at a time: as many as a cache holds. With twenty
# seconds at once the resampler took three times as long.
_AT_ONCE = 1 << 15


class Piece(NamedTuple):
    """What was read, or computed, of one clip in one modality; `cut` is whether of more there is
    than was taken."""

    values: Array
    cut: bool = False


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
    with _opened(path) as container:
        stream = _stream(container.streams.video, "holds no pictures")
        if stream.codec_context.width * stream.codec_context.height > _MOST_PIXELS:
            size = f"{stream.codec_context.width} x {stream.codec_context.height}"
            raise MediaError(f"expected frames of at most {_MOST_PIXELS:,} pixels, got {size}")
        end = _End(sampling.seconds)
        duration = math.inf if sampling.count is None else _duration(container, stream)
        convert = _Converter(picture)
        taken: list[Array] = []
        shown = on_screen(
            end.passing(container.decode(stream)), lambda time: sampling.before(time, duration)
        )
        for frame, times in shown:
            taken += [convert(frame)] * times
        _check_whole(container, stream, end.time, sampling.seconds)
    if not taken:
        raise MediaError("holds no picture that can be decoded")
    return Piece(np.stack(taken[:1] if end.frames == 1 else taken), end.beyond)


def read_sound(path: Path, rate: int, seconds: float) -> Piece:
    """The sound of a file, the mean of its channels, at `rate`: (S,) float32.

    Raises:
        MediaError: for a file without sound, or one that is broken.
    """
    with _opened(path) as container:
        stream = _stream(container.streams.audio, NO_SOUND)
        sound = _Sound(rate)
        for frame in container.decode(stream):
            sound.add(frame)
            if sound.seconds > seconds:
                break
        _check_whole(container, stream, sound.seconds, seconds)
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


def _check_whole(container: Any, stream: Any, end: float, seconds: float) -> None:
    """Raise MediaError where an index promised much more than there is; others only estimate."""
    if not stream.duration or not container.format.name.startswith("mov"):
        return
    promised = min(float(stream.duration * stream.time_base), seconds)
    if end + max(_SLACK[0], _SLACK[1] * promised) < promised:
        raise MediaError(f"is cut short: ends after {end:.1f} of {promised:.1f} s")


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
        """(H, W, 3) uint8."""
        height, width = self.picture.scaled(frame.height, frame.width)
        scaled = self._reformatter.reformat(
            frame, width, height, format="rgb24", interpolation=self.picture.filter
        ).to_ndarray()
        rows, columns = self.picture.crop
        top, left = (height - rows) // 2, (width - columns) // 2
        return np.ascontiguousarray(scaled[top : top + rows, left : left + columns])


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A media file; whatever is wrong with it becomes a MediaError."""
    import av

    av.logging.set_level(None)
    if not path.exists():
        raise MediaError("no such file")
    if not path.is_file():
        raise MediaError("expected a file, got a directory, pipe or device")
    if not os.path.getsize(path):
        raise MediaError("expected a media file, got an empty one")
    try:
        with av.open(f"file:{path.absolute()}", options=dict(_OPTIONS)) as container:
            yield container
    except MediaError:
        raise
    except MemoryError:
        raise MediaError("needs more memory than a decoder may take") from None
    # Damage shows as any of FFmpeg's errors, and as what PyAV makes of half a header.
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise MediaError(f"is broken, or no media file ({reason})") from None


def _stream(streams: Any, absent: str) -> Any:
    if not streams:
        raise MediaError(absent)
    stream = streams[0]
    # Several files are decoded at once.
    stream.codec_context.thread_count = 1
    return stream


def _duration(container: Any, stream: Any) -> float:
    """How long a video is; where its header does not say, by when its last packet is shown."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    ends = [
        float((packet.pts + (packet.duration or 0)) * stream.time_base)
        for packet in container.demux(stream)
        if packet.pts is not None
    ]
    container.seek(0)
    return max(ends, default=0.0) or 1e-3
