"""Train MTMLAN and HGFN on real data sets from the command line, beside ridge regression.

    python -m benchmarks.training.real_data DATA OUT [--seeds 3] [--epochs N] [--only mosi ...]

DATA holds natural_scene.npz, mosi.npz, yt8m_top100.npz and mulan/scene-{train,test}.arff. Prints a
Markdown table; the runs stay in OUT. Ridge regression on the standardised, flattened features with
the regularisation that is best on the validation split, and a decision at 1/2, says what the
features give away without a network.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from fastmtl import data
from fastmtl.data import MultiTaskData, Standardizer
from fastmtl.training import multilabel_metrics

# Data set: file, and the options of `fastmtl train` beside the defaults.
RUNS: dict[str, tuple[str, str]] = {
    "natural_scene": (
        "natural_scene.npz",
        "--model mtmlan --hidden-size 64 --dropout 0.3 --epochs 40 --patience 8 --monitor map",
    ),
    "mosi": ("mosi.npz", "--model hgfn --dropout 0.5 --lr 1e-4 --epochs 20 --patience 5"),
    "yt8m_top100": (
        "yt8m_top100.npz",
        "--model hgfn --hidden-size 256 --dropout 0.5 --batch-size 32 --epochs 15 --patience 4 "
        "--monitor map",
    ),
    "scene": (
        "mulan/scene-train.arff",
        "--model mtmlan --hidden-size 64 --dropout 0.3 --epochs 30 --patience 6",
    ),
}
METRICS = ("micro_f1", "hamming_loss", "map")


def ridge(dataset: MultiTaskData) -> dict[str, Any]:
    """Metrics on the test split of the best ridge regression."""
    scaled = Standardizer().fit(dataset).transform(dataset)
    x = torch.cat([part.flatten(1) for part in scaled.features().values()], 1).double()
    x = torch.cat([x, torch.ones(len(x), 1)], 1)
    y = dataset.y.double()
    train, val, test = (dataset.indices(split) for split in ("train", "val", "test"))
    gram, product = x[train].T @ x[train], x[train].T @ y[train]
    fits = [
        torch.linalg.solve(gram + strength * torch.eye(len(gram)), product)
        for strength in (1, 10, 100, 1000, 10000)
    ]
    best = min(fits, key=lambda weight: float((x[val] @ weight - y[val]).square().mean()))
    scores = (x[test] @ best).clamp(0, 1).float()
    return multilabel_metrics(scores, dataset.y[test], dataset.label_names)


def train(path: Path, options: str, out: Path, seed: int) -> dict[str, Any]:
    """metrics.json of one run of the command line."""
    command = [sys.executable, "-m", "fastmtl", "train", "--data", str(path), "--out", str(out)]
    subprocess.run(
        [*command, *options.split(), "--seed", str(seed), "--overwrite"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return metrics


def mean_and_deviation(values: list[float]) -> str:
    """The mean, with the deviation where there is more than one value."""
    text = f"{statistics.mean(values):.4f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.4f}"


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
        file, options = RUNS[name]
        if arguments.epochs:
            options += f" --epochs {arguments.epochs}"
        path = arguments.data / file
        baseline = ridge(data.load(str(path)))
        figures = " | ".join(f"{baseline[metric]:.4f}" for metric in METRICS)
        print(f"| {name} | ridge regression | {figures} | |", flush=True)
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
