"""Train HGFN on one data set with every balancer, at the same budget.

    python -m benchmarks.training.compare_balancers DATA OUT [--seeds 3] [--epochs 8] [--only ...]

DATA is yt8m_top100.npz or another file of several modalities. All runs have the same options, a
fixed number of epochs and no early stopping; the best epoch by mAP on the validation split is
measured on the test split. The Markdown table goes to OUT/table.md and, row by row, to stdout; the
runs stay in OUT, so that a second call goes on where the first was stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.training.reporting import mean_and_deviation
from fastmtl.training.recipes import BALANCERS

OPTIONS = (
    "--preset paper --model hgfn --hidden-size 128 --dropout 0.3 --batch-size 64 --lr 2e-3 "
    "--monitor map"
)
METRICS = ("micro_f1", "map")


def train(data: Path, out: Path, balancer: str, epochs: int, seed: int) -> dict[str, Any]:
    """metrics.json of one run of the command line, finished now or before."""
    options = [*OPTIONS.split(), "--epochs", str(epochs), "--patience", str(epochs)]
    options += ["--data", str(data), "--balancer", balancer, "--seed", str(seed)]
    resume = ["--resume"] if (out / "checkpoint.safetensors").exists() else ["--overwrite"]
    command = [sys.executable, "-m", "fastmtl", "train", "--out", str(out), *options, *resume]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--only", nargs="+", choices=BALANCERS, default=list(BALANCERS))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = ["| balancer | micro-F1 | mAP | best epoch | s/epoch |", "|---|---|---|---|---|"]
    print("\n".join(rows), flush=True)
    for balancer in arguments.only:
        runs = [
            train(
                arguments.data,
                arguments.out / f"{balancer}-{seed}",
                balancer,
                arguments.epochs,
                seed,
            )
            for seed in range(arguments.seeds)
        ]
        cells = [mean_and_deviation([run["test"][metric] for run in runs]) for metric in METRICS]
        training = [run["training"] for run in runs]
        cells.append(", ".join(str(each["best_epoch"]) for each in training))
        cells.append(f"{statistics.median(each['seconds_per_epoch'] for each in training):.2f}")
        rows.append(f"| `{balancer}` | {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    (arguments.out / "table.md").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
