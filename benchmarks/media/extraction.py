"""Extraction beside decoding alone: `fastmtl extract` with `stft`, and PyAV that throws away.

    python -m benchmarks.media.extraction --clips 200 --seconds 20 --workers 2

The clips have 320 x 240 pixels in H.264 and stereo sound of 48 kHz in AAC. Decoding alone is timed
for the sound, which is all that `stft` reads, and for whole files, in as many processes as the
extraction has. Few clips are timed beside many: the difference is what a clip takes, and the rest
is start-up. The ratios are by the clock, and by the processor time of the processes that decode.
Memory is the peak of the process that extracts, for the clips and for four times as many. That the
features are right is for the tests.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import NamedTuple

import av
import numpy as np

from fastmtl.media import extract
from fastmtl.media.encoders.stft import LogMel
from fastmtl.media.options import Options
from fastmtl.media.sound import read_sound
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


class Taken(NamedTuple):
    """Seconds by the clock, and of the processors of the processes that decode."""

    clock: float
    processors: float


def taken(work: Callable[[Sequence[Path]], None], paths: Sequence[Path]) -> Taken:
    """What it takes to do something with clips."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    work(paths)
    clock, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Taken(clock, used)


def decode_all(paths: Sequence[Path], *, workers: int, sound_alone: bool) -> None:
    """Decode clips in as many processes as an extraction has."""
    work = partial(decode, sound_alone=sound_alone)
    # Processes of this one have everything loaded.
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        assert all(pool.map(work, paths, chunksize=4))


def extract_all(paths: Sequence[Path], *, workers: int) -> None:
    """Extract clips from this process, which has loaded everything."""
    with tempfile.TemporaryDirectory() as folder:
        table = manifest(Path(folder, "clips.csv"), paths)
        out = Path(folder, "out.h5")
        extract(table, out, {"audio": "stft"}, options=Options(workers=workers))


def manifest(table: Path, paths: Sequence[Path]) -> Path:
    """A manifest of clips."""
    return write_table(table, [{"video": path, "y_a": i % 2} for i, path in enumerate(paths)])


def shares(paths: Sequence[Path]) -> dict[str, float]:
    """What each stage takes of the features of a clip, by the time of this processor."""
    mel = LogMel(16000, 40, 1.0, 600.0)
    sound = read_sound(paths[0], mel.rate, mel.seconds).values
    stages: dict[str, Callable[[Path], object]] = {
        "all": mel.read,
        "decoding": partial(decode, sound_alone=True),
        "sound": lambda path: read_sound(path, mel.rate, mel.seconds),
        "products": lambda _: mel.energies(sound),
    }
    times: dict[str, list[float]] = {name: [] for name in stages}
    for path in 10 * list(paths):
        for name, stage in stages.items():
            begun = time.process_time()
            stage(path)
            times[name].append(time.process_time() - begun)
    whole, *rest = (median(each) for each in times.values())
    decoding, sounded, products = (each / whole for each in rest)
    return {
        "decoding": decoding,
        "mixing and resampling": sounded - decoding,
        "FFT, mel product and logarithm": products,
    }


def peak_memory(table: Path, workers: int) -> int:
    """MiB of a process that extracts a manifest."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-c",
            _IN_A_PROCESS,
            str(table),
            f"{folder}/out.h5",
            str(workers),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout) >> 10


def compare(paths: Sequence[Path], workers: int, rounds: int) -> None:
    """Print what a clip takes, extracted and decoded, and start-up."""
    few = paths[: 4 * workers]
    works: dict[str, Callable[[Sequence[Path]], None]] = {
        "extract --audio stft": partial(extract_all, workers=workers),
        "PyAV, sound alone": partial(decode_all, workers=workers, sound_alone=True),
        "PyAV, whole files": partial(decode_all, workers=workers, sound_alone=False),
    }
    times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            short, long = taken(work, few), taken(work, paths)
            clock, processors = (
                (more - less) / (len(paths) - len(few))
                for more, less in zip(long, short, strict=True)
            )
            times[name].append((short.clock - len(few) * clock, clock, processors))
    ours: tuple[float, ...] = ()
    for name, each in times.items():
        start, *clip = (median(column) for column in zip(*each, strict=True))
        ours = ours or tuple(clip)
        ratios = " and ".join(f"{a / b:.2f}x" for a, b in zip(ours, clip, strict=True))
        clock, processors = (1000 * value for value in clip)
        print(
            f"{name:22} start {start:5.2f} s, then {clock:6.2f} ms a clip, {processors:6.2f} ms of"
            f" processors; extract takes {ratios}"
        )


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
        clips = [folder / f"{i}.mp4" for i in range(4)]
        for i, path in enumerate(clips):
            write_clip(path, given.seconds, i)
        paths = [clips[i % 4] for i in range(given.clips)]
        print(f"{given.clips} clips of {given.seconds:g} s, {given.workers} processes")
        compare(paths, given.workers, given.rounds)
        parts = (f"{name} {share:.0%}" for name, share in shares(clips).items())
        print(f"of the features: {', '.join(parts)}")
        tables = [manifest(folder / f"{n}.csv", n * paths) for n in (1, 4)]
        sizes = [peak_memory(table, given.workers) for table in tables]
        print(f"peak memory {sizes[0]} MiB, with four times the clips {sizes[1]} MiB")


if __name__ == "__main__":
    main()
