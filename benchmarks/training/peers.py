"""Fit what users would reach for first on the data sets, at one budget for all.

    python -m benchmarks.training.peers DATA OUT [--seeds 3] [--settings 4] [--only SET ...]

DATA holds what `benchmarks.training.reporting.FILES` names. The split is that of `fastmtl train`
with the same seed, features are standardised by the training rows and flattened, and each peer is
fitted on the training rows with every one of its settings; the one with the highest mAP on the
validation rows is measured on the test rows, with decisions at 1/2 and, beside it, at the one
threshold with the highest micro-F1 on the validation rows. No choice reads the test rows.

Prints a Markdown table. Each run is a file in OUT, written whole or not at all, and is not done
again by a second call; one of other data or settings is. LightGBM takes part where it is installed.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from benchmarks.training.peer_models import PEERS, Array, Peer, Rows, mean_average_precision
from benchmarks.training.reporting import FILES, METRICS, mean_and_deviation
from fastmtl import data
from fastmtl.data import MultiTaskData, Standardizer
from fastmtl.reproduce.execute import flat_features
from fastmtl.training import RunError, multilabel_metrics
from fastmtl.training.checkpoint import read_sealed, seal, write_json
from fastmtl.training.inputs import fingerprint
from fastmtl.training.thresholds import HALF, best_threshold


def split_rows(dataset: MultiTaskData) -> dict[str, Rows]:
    """Train, val and test as peers read them."""
    x = flat_features(Standardizer().fit(dataset).transform(dataset)).numpy()
    y = dataset.y.numpy()
    splits = {split: dataset.indices(split).numpy() for split in ("train", "val", "test")}
    return {split: Rows(x[rows], y[rows]) for split, rows in splits.items()}


def measure(scores: Array, rows: Rows, names: list[str], threshold: float = HALF) -> dict[str, Any]:
    """fastmtl's metrics."""
    targets = torch.as_tensor(rows.y)
    return multilabel_metrics(torch.as_tensor(scores), targets, names, threshold=threshold)


def run(peer: Peer, dataset: MultiTaskData, seed: int, settings: int) -> dict[str, Any]:
    """Fit a peer with each of its first settings, and measure the best."""
    rows = split_rows(dataset)
    trials: list[dict[str, Any]] = []
    best_map = -1.0
    for setting in peer.settings[:settings]:
        start = time.perf_counter()
        fitted = peer.fit(rows["train"], rows["val"], seed, **setting)
        seconds = time.perf_counter() - start
        scores = fitted(rows["val"].x)
        value = mean_average_precision(scores, rows["val"].y)
        trials.append({"setting": setting, "val_map": value, "seconds": seconds})
        if value > best_map:
            best_map, predict, chosen = value, fitted, trials[-1]
            targets = torch.as_tensor(rows["val"].y)
            threshold = best_threshold(torch.as_tensor(scores), targets, "micro_f1")
    scores = predict(rows["test"].x).astype(float)
    return {
        "trials": trials,
        "chosen": chosen["setting"],
        "seconds": chosen["seconds"],
        "test": measure(scores, rows["test"], dataset.label_names),
        "threshold": threshold,
        "test_at_threshold": measure(scores, rows["test"], dataset.label_names, threshold),
    }


def run_or_read(name: str, path: Path, out: Path, seed: int, settings: int) -> dict[str, Any]:
    """The result of a run, done now or before."""
    dataset = data.load(str(path), seed=seed)
    # As JSON has them, to compare with what was stored.
    about = {
        "data": fingerprint(dataset),
        "settings": [{**setting} for setting in PEERS[name].settings[:settings]],
    }
    try:
        stored = read_sealed(out)
    except RunError:
        stored = {}
    if stored.items() >= about.items():
        return stored
    result = {**about, **run(PEERS[name], dataset, seed, settings)}
    write_json(out, seal(result))
    return result


def cells(runs: list[dict[str, Any]]) -> list[str]:
    """A row's figures: test metrics, those at the tuned threshold, and seconds of a fit."""
    figures = [mean_and_deviation([each["test"][name] for each in runs]) for name in METRICS]
    tuned = [
        mean_and_deviation([each["test_at_threshold"][name] for each in runs])
        for name in METRICS[:2]
    ]
    return [*figures, *tuned, f"{statistics.median(each['seconds'] for each in runs):.3g}"]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--settings", type=int, default=4, help="tried of each peer's, at most")
    parser.add_argument("--only", nargs="+", choices=FILES, default=list(FILES))
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    options = parser.parse_args(arguments)
    if min(options.seeds, options.settings) < 1:
        parser.error("--seeds, --settings: expected at least 1")
    # Convergence and column names: nothing that a table's reader can act on.
    warnings.filterwarnings("ignore", module=r"(sklearn|lightgbm)\.")
    options.out.mkdir(parents=True, exist_ok=True)
    header = (
        "| data | peer | micro-F1 | Hamming loss | mAP | tuned micro-F1 | tuned Hamming | s/fit |"
    )
    print(f"{header}\n|---|---|---|---|---|---|---|---|")
    for name in options.only:
        num_labels = data.load(str(options.data / FILES[name])).num_tasks
        for peer in options.peers:
            if num_labels < PEERS[peer].least_labels:
                continue
            runs = [
                run_or_read(
                    peer,
                    options.data / FILES[name],
                    options.out / f"{name}-{peer}-{seed}.json",
                    seed,
                    options.settings,
                )
                for seed in range(options.seeds)
            ]
            print(f"| {name} | {PEERS[peer].row} | {' | '.join(cells(runs))} |", flush=True)


if __name__ == "__main__":
    main()
