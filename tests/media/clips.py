"""Short clips with pictures and sound, made by PyAV, and manifests of them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

HEIGHT, WIDTH, FRAMES_A_SECOND, RATE = 64, 96, 8, 16000
COLOURS = {"red": (220, 40, 40), "blue": (40, 60, 220)}


def write_clip(
    path: Path,
    seconds: float = 2.0,
    *,
    colour: tuple[int, int, int] = (220, 40, 40),
    speed: float = 0.0,
    tone: float | None = 440.0,
    rng: np.random.Generator | None = None,
) -> Path:
    """A clip of a square that moves by `speed` of the width a second, and a tone of so many Hz;
    without sound where that is None, with noise in both where there is `rng`."""
    import av

    rng = rng or np.random.default_rng(0)
    count = round(seconds * FRAMES_A_SECOND)
    with av.open(str(path), "w") as file:
        video = file.add_stream("mpeg4", rate=FRAMES_A_SECOND, bit_rate=400_000)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound = None if tone is None else file.add_stream("aac", rate=RATE, layout="mono")
        for i in range(count):
            picture = rng.integers(0, 40, (HEIGHT, WIDTH, 3)).astype(np.uint8)
            left = round(i / FRAMES_A_SECOND * speed * WIDTH) % (WIDTH - 24)
            picture[20:44, left : left + 24] = colour
            file.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(video.encode())
        if sound is not None and tone is not None:
            for frame in _tone(tone, seconds, rng):
                file.mux(sound.encode(frame))
            file.mux(sound.encode())
    return path


def write_sound(path: Path, seconds: float = 2.0, tone: float = 440.0) -> Path:
    """A .wav of a tone."""
    import av

    with av.open(str(path), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for frame in _tone(tone, seconds, np.random.default_rng(0)):
            frame.format  # noqa: B018
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def write_table(path: Path, rows: list[dict[str, Any]], delimiter: str = ",") -> Path:
    """A manifest with the columns of the first row."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def _tone(frequency: float, seconds: float, rng: np.random.Generator) -> Any:
    import av

    time = np.arange(round(seconds * RATE)) / RATE
    wave = 0.4 * np.sin(2 * np.pi * frequency * time) + 0.02 * rng.normal(size=time.size)
    frame = av.AudioFrame.from_ndarray(wave[None].astype(np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.pts = RATE, 0
    yield frame
