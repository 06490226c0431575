"""Train MTMLAN and HGFN on real data sets from the command line.

    python -m benchmarks.training.real_data DATA OUT [--seeds 3] [--epochs N] [--only mosi ...]

DATA holds what `benchmarks.training.reporting.FILES` names. Prints a Markdown table; the runs stay
in OUT. What others reach on the same splits is `benchmarks.training.peers`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.training.reporting import FILES, METRICS, mean_and_deviation

# Data set, and the options of `fastmtl train --preset paper`.
RUNS = {
    "natural_scene": (
        "--model mtmlan --hidden-size 64 --dropout 0.3 --epochs 40 --patience 8 --monitor map"
    ),
    "mosi": "--model hgfn --dropout 0.5 --lr 1e-4 --epochs 20 --patience 5",
    "yt8m_top100": (
        "--model hgfn --hidden-size 256 --dropout 0.5 --batch-size 32 --epochs 15 --patience 4 "
        "--monitor map"
    ),
    "scene": "--model mtmlan --hidden-size 64 --dropout 0.3 --epochs 30 --patience 6",
}


def train(path: Path, options: str, out: Path, seed: int) -> dict[str, Any]:
    """metrics.json of one run of the command line."""
    command = [sys.executable, "-m", "fastmtl", "train", "--preset", "paper"]
    command += ["--data", str(path), "--out", str(out)]
    subprocess.run(
        [*command, *options.split(), "--seed", str(seed), "--overwrite"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="instead of the number that each run has")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    arguments = parser.parse_args()
    print("| data | system | micro-F1 | Hamming loss | mAP | s/epoch |\n|---|---|---|---|---|---|")
    for name in arguments.only:
        options = RUNS[name]
        if arguments.epochs:
            options += f" --epochs {arguments.epochs}"
        path = arguments.data / FILES[name]
        runs = [
            train(path, options, arguments.out / f"{name}-{seed}", seed)
            for seed in range(arguments.seeds)
        ]
        figures = " | ".join(
            mean_and_deviation([run["test"][metric] for run in runs]) for metric in METRICS
        )
        seconds = statistics.median(run["training"]["seconds_per_epoch"] for run in runs)
        print(f"| {name} | `{options}` | {figures} | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
