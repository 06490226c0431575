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


CONCEPTS = ("red", "moving", "siren", "flood")
_WORDS = {
    True: ("water in the streets", "the river rises", "houses under water", "the dam overflows"),
    False: ("a quiet street", "sun over the town", "people at the market", "a road in the hills"),
}


def write_set(folder: Path, count: int, *, seed: int = 0) -> Path:
    """Clips whose concepts show in a colour, a motion, a tone and the words of a caption; the
    manifest clips.csv of them, with a split of 60/20/20."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        red, moving, siren, flood = (bool(each) for each in rng.integers(0, 2, 4))
        name = f"clip{i:03}.mp4"
        write_clip(
            folder / name,
            seconds=float(rng.uniform(1.5, 3.0)),
            colour=COLOURS["red" if red else "blue"],
            speed=0.8 if moving else 0.0,
            tone=float(rng.uniform(1500, 2500) if siren else rng.uniform(200, 400)),
            rng=rng,
        )
        caption = f"{rng.choice(_WORDS[flood])}, seen {rng.choice(['today', 'at noon', 'by us'])}"
        labels = dict(zip(CONCEPTS, (red, moving, siren, flood), strict=True))
        split = "train" if i % 5 < 3 else "val" if i % 5 == 3 else "test"
        columns = {f"y_{name}": int(value) for name, value in labels.items()}
        rows.append({"video": name, "text": caption, **columns, "split": split})
    return write_table(folder / "clips.csv", rows)
