"""Train on features that stay in their file beside the same features in memory.

    python -m benchmarks.training.streaming OUT [--gib 4] [--model hgfn] [--epochs 3]

Writes a set of that size into OUT, trains on it with `--memory load` and with `--memory stream`,
and prints a Markdown table: seconds an epoch, seconds of the whole command, and the most memory
that it held. Both runs compute the same; the benchmark stops where their figures differ.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

FEATURES = 4096
_ROWS = 4096  # written at a time
# Runs a command, and tells the most memory that it held (in KiB on Linux).
_MEASURED = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps([done.returncode, most << 10, done.stderr]))
"""


class Cost(NamedTuple):
    """What a command took."""

    seconds: float
    resident: int  # bytes, at most


def write(folder: Path, gib: float) -> None:
    """A directory of arrays with `gib` GiB of float32 features, whose labels depend on them."""
    samples = round(gib * (1 << 30) / (4 * FEATURES))
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((FEATURES, 2)).astype(np.float32)
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (samples, FEATURES))
    y = np.empty((samples, 2), np.int8)
    for start in range(0, samples, _ROWS):
        part = rng.standard_normal((min(_ROWS, samples - start), FEATURES), np.float32)
        x[start : start + len(part)] = part
        y[start : start + len(part)] = part @ directions > 0
    x.flush()
    np.save(folder / "y.npy", y)


def measured(*arguments: str, environment: dict[str, str] | None = None) -> Cost:
    """What a command of fastmtl takes; RuntimeError if it fails."""
    command = [sys.executable, "-c", _MEASURED, sys.executable, "-m", "fastmtl", *arguments]
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    code, most, errors = json.loads(done.stdout)
    if code:
        raise RuntimeError(f"fastmtl {' '.join(arguments)}: {errors}")
    return Cost(time.perf_counter() - begun, most)


def train(data: Path, out: Path, memory: str, model: str, epochs: int) -> tuple[Cost, float, float]:
    """The cost of a training run, its seconds an epoch, and its mean average precision."""
    cost = measured(
        "train", "--data", str(data), "--memory", memory, "--model", model, "--out", str(out),
        "--epochs", str(epochs), "--patience", str(epochs), "--batch-size", "512", "--overwrite",
    )  # fmt: skip
    metrics = json.loads((out / "metrics.json").read_text())
    return cost, metrics["training"]["seconds_per_epoch"], metrics["test"]["map"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--gib", type=float, default=4.0)
    parser.add_argument("--model", default="hgfn")
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    data = arguments.out / "set"
    write(data, arguments.gib)
    print("| memory | s/epoch | beside load | s in all | most resident |\n|---|---|---|---|---|")
    seconds, figures = {}, set()
    for memory in ("load", "stream"):
        out = arguments.out / memory
        cost, seconds[memory], figure = train(data, out, memory, arguments.model, arguments.epochs)
        figures.add(figure)
        ratio = seconds[memory] / seconds["load"]
        print(
            f"| {memory} | {seconds[memory]:.2f} | {ratio:.2f} | {cost.seconds:.0f} | "
            f"{cost.resident / 1e9:.2f} GB |",
            flush=True,
        )
    if len(figures) != 1:
        raise SystemExit(f"the runs differ in their figures: {sorted(figures)}")


if __name__ == "__main__":
    main()
