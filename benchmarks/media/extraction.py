"""Extraction beside decoding alone: `fastmtl extract` with `stft`, and PyAV that throws away.

    python -m benchmarks.media.extraction --clips 200 --seconds 20 --workers 1

Both decode the sound of the same clips; with as many processes as workers. The ratio says what the
resampling, the features, the journal and the file cost on top; it is to be at most 1.2. Processes
are started within the time, so the clips must be many enough. Memory is the peak of this process
for the clips, and for four times as many.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import av
import numpy as np

from tests.media.clips import write_clip, write_table

_EXTRACT = """
import resource, sys
from fastmtl.media import extract
from fastmtl.media.options import Options
done = extract(sys.argv[1], sys.argv[2], {{{encoders}}}, options=Options(workers={workers}))
print(done.written, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def decoded(path: Path) -> int:
    """Samples of the sound of a clip, decoded and thrown away."""
    with av.open(str(path)) as file:
        stream = file.streams.audio[0]
        stream.codec_context.thread_count = 1
        return sum(frame.samples for frame in file.decode(stream))


def decode_all(paths: list[Path], workers: int) -> float:
    """Seconds that decoding takes, in processes as an extraction has them."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(decoded, paths[:workers]))
        begun = time.perf_counter()
        assert all(pool.map(decoded, paths, chunksize=4))
        return time.perf_counter() - begun


def extracted(table: Path, workers: int, encoders: str) -> int:
    """The peak memory in KiB of a process that extracts a manifest."""
    program = _EXTRACT.format(workers=workers, encoders=encoders)
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", program, table, Path(folder, "out.h5")],
            capture_output=True,
            text=True,
            check=True,
        )
    return int(done.stdout.split()[1])


def extract_all(table: Path, workers: int, encoders: dict[str, str]) -> float:
    """Seconds that an extraction takes in this process, which has loaded everything."""
    from fastmtl.media import extract
    from fastmtl.media.options import Options

    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        extract(table, Path(folder, "out.h5"), encoders, options=Options(workers=workers))
        return time.perf_counter() - begun


def main() -> None:
    """Print both times, their ratio, and the memory."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, rng = Path(name), np.random.default_rng(0)
        made = [write_clip(folder / f"{i}.mp4", given.seconds, rng=rng) for i in range(4)]
        paths = [made[i % 4] for i in range(given.clips)]
        rows = [{"video": path.name, "y_a": i % 2} for i, path in enumerate(paths)]
        table = write_table(folder / "clips.csv", rows)
        more = write_table(folder / "more.csv", 4 * rows)
        times = [
            (decode_all(paths, given.workers), extract_all(table, given.workers, {"audio": "stft"}))
            for _ in range(given.rounds)
        ]
        plain, ours = (median(each) for each in zip(*times, strict=True))
        print(f"{given.clips} clips of {given.seconds:g} s, {given.workers} workers")
        print(f"PyAV decoding alone  {plain:.2f} s")
        print(f"extract, stft        {ours:.2f} s  {ours / plain:.2f}x")
        one, four = (extracted(each, given.workers, '"audio": "stft"') for each in (table, more))
        print(f"peak memory          {one >> 10} MiB, of four times the clips {four >> 10} MiB")


if __name__ == "__main__":
    main()
