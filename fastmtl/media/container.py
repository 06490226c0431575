"""Media files opened by PyAV. Runs in decoding processes, so it loads no PyTorch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastmtl.media.errors import MediaError

# What holds pictures and sound. FFmpeg also plays text files, playlists that name other files and
# addresses, and devices: none of these is what a manifest means.
_FORMATS = (
    "3dostr,aac,ac3,aiff,amr,amrnb,amrwb,apng,asf,au,avi,bmp_pipe,caf,dts,dv,eac3,flac,flv,gif,"
    "h264,hevc,image2,ivf,jpeg_pipe,jpegxl_pipe,m4v,matroska,webm,mjpeg,mov,mp4,m4a,3gp,3g2,mj2,"
    "mp3,mpeg,mpegts,mpegvideo,mxf,nut,obu,av1,ogg,png_pipe,rm,tiff_pipe,tta,w64,wav,webp_pipe,wtv,"
    "wv,yuv4mpegpipe"
)
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "file", "pattern_type": "none"}
# An index may say a little more than there is; a file that ends long before was cut short.
_SLACK = 1.0, 0.1


def need_av() -> None:
    """Raise MediaError where PyAV is not installed."""
    if find_spec("av") is None:
        raise MediaError('PyAV: expected it installed (pip install "fastmtl-torch[media]")')


@contextmanager
def opened(path: Path) -> Iterator[Any]:
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


def first_stream(container: Any, kind: str, absent: str) -> Any:
    """The one stream of a kind, video or audio, that is decoded, by one thread; the rest is not
    even read. Raises MediaError saying what is `absent` where there is none."""
    from av.stream import Discard

    stream = next(iter(getattr(container.streams, kind)), None)
    if stream is None:
        raise MediaError(absent)
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    # Several files are decoded at once.
    stream.codec_context.thread_count = 1
    return stream


def shown_until(container: Any, stream: Any) -> float:
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


def check_whole(container: Any, stream: Any, end: float, seconds: float) -> None:
    """Raise MediaError where an index promised much more than there is; others only estimate."""
    if not stream.duration or not container.format.name.startswith("mov"):
        return
    promised = min(float(stream.duration * stream.time_base), seconds)
    if end + max(_SLACK[0], _SLACK[1] * promised) < promised:
        raise MediaError(f"is cut short: ends after {end:.1f} of {promised:.1f} s")
