"""Extraction beside decoding alone: `fastmtl extract` with `stft`, and PyAV that throws away.

    python -m benchmarks.media.extraction --clips 200 --seconds 20 --workers 2

The clips have 320 x 240 pixels in H.264 and stereo sound of 48 kHz in AAC. Decoding alone is timed
for the sound, which is all that `stft` reads, and for the whole file; in one process, which is what
a loop over files is, and in as many as workers. Those are started before the clock, those of the
extraction behind it. Memory is the peak of the process that extracts, for the clips and for four
times as many. That the features are right is for the tests.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import av
import numpy as np

from fastmtl.media import extract
from fastmtl.media.options import Options
from tests.media.clips import write_table

RATE, FRAMES_A_SECOND = 48000, 25
_IN_A_PROCESS = """
import resource, sys
from fastmtl.media import extract
from fastmtl.media.options import Options
extract(sys.argv[1], sys.argv[2], {"audio": "stft"}, options=Options(workers=int(sys.argv[3])))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write_clip(path: Path, seconds: float, seed: int) -> None:
    """A clip of noise that moves, and sweeps that differ between the channels."""
    rng = np.random.default_rng(seed)
    background = rng.integers(0, 255, (240, 320, 3)).astype(np.uint8)
    time_of = np.arange(round(seconds * RATE)) / RATE
    sweep = np.sin(2 * np.pi * (300 + 50 * np.sin(time_of + seed)) * time_of)
    wave = np.stack([sweep, sweep[::-1]]) * 0.4 + 0.05 * rng.normal(size=(2, len(sweep)))
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=FRAMES_A_SECOND, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
        sound = file.add_stream("aac", rate=RATE, layout="stereo")
        for i in range(round(seconds * FRAMES_A_SECOND)):
            picture = np.roll(background, 2 * i, axis=1)
            file.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(video.encode())
        frame = av.AudioFrame.from_ndarray(wave.astype(np.float32), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = RATE, 0
        file.mux(sound.encode(frame))
        file.mux(sound.encode())


def decode(path: Path, *, sound_alone: bool) -> int:
    """Decode a clip and throw it away; the number of frames."""
    with av.open(str(path)) as file:
        streams = list(file.streams.audio) if sound_alone else list(file.streams)
        for stream in streams:
            stream.codec_context.thread_count = 1
        return sum(1 for packet in file.demux(streams) for _ in packet.decode())


def decode_all(paths: list[Path], workers: int, *, sound_alone: bool) -> float:
    """Seconds that decoding takes, in processes as an extraction has them."""
    work = partial(decode, sound_alone=sound_alone)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(work, paths[:workers]))
        begun = time.perf_counter()
        assert all(pool.map(work, paths, chunksize=4))
        return time.perf_counter() - begun


def extract_all(table: Path, workers: int) -> float:
    """Seconds that an extraction takes in this process, which has loaded everything."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        extract(table, Path(folder, "out.h5"), {"audio": "stft"}, options=Options(workers=workers))
        return time.perf_counter() - begun


def peak_memory(table: Path, workers: int) -> int:
    """MiB of a process that extracts a manifest."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", _IN_A_PROCESS, table, f"{folder}/out.h5", str(workers)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout) >> 10


def main() -> None:
    """Print the times, their ratios, and the memory."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i in range(4):
            write_clip(folder / f"{i}.mp4", given.seconds, i)
        rows = [{"video": f"{i % 4}.mp4", "y_a": i % 2} for i in range(given.clips)]
        table = write_table(folder / "clips.csv", rows)
        more = write_table(folder / "more.csv", 4 * rows)
        paths = [folder / row["video"] for row in rows]
        times = [
            (
                extract_all(table, given.workers),
                *(
                    decode_all(paths, count, sound_alone=sound_alone)
                    for sound_alone in (True, False)
                    for count in (1, given.workers)
                ),
            )
            for _ in range(given.rounds)
        ]
        ours, *alone = (median(each) for each in zip(*times, strict=True))
        print(f"{given.clips} clips of {given.seconds:g} s")
        print(f"extract --audio stft, {given.workers} workers        {ours:6.2f} s")
        names = (
            f"{what}, {n} process(es)" for what in ("sound", "all") for n in (1, given.workers)
        )
        for name, plain in zip(names, alone, strict=True):
            print(f"PyAV alone, {name:24} {plain:6.2f} s, extract takes {ours / plain:.2f}x")
        sizes = [peak_memory(each, given.workers) for each in (table, more)]
        print(f"peak memory {sizes[0]} MiB, with four times the clips {sizes[1]} MiB")


if __name__ == "__main__":
    main()
