"""What MT-DNN's pretraining gives, with few labels and with many.

    python -m benchmarks.training.pretraining DATA OUT [--seeds 3] [--shares 0.05 0.25 1]

DATA holds what `benchmarks.training.reporting.FILES` names. Of the rows that are not of the test
split a share, drawn by the seed, keeps its labels. MT-DNN with its defaults is fitted on these
without pretraining, pretrained on their features, and pretrained on the features of all training
rows, and measured on the test rows. Prints a Markdown table; OUT is a JSON file of all runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.training.reporting import FILES, METRICS, mean_and_deviation
from fastmtl import data
from fastmtl.models import MTDNN
from fastmtl.reproduce.execute import flat_features
from fastmtl.training import multilabel_metrics
from fastmtl.training.checkpoint import write_json

SETS = ("scene", "yeast", "natural_scene")
MODES = ("none", "on the labelled rows", "on all training rows")


def fit(path: Path, share: float, mode: str, seed: int) -> dict[str, Any]:
    """Test metrics of one MT-DNN."""
    dataset = data.load(str(path), seed=seed)
    x, y, test = flat_features(dataset).numpy(), dataset.y.numpy(), dataset.indices("test").numpy()
    train = np.setdiff1d(np.arange(len(x)), test)
    train = np.random.default_rng(seed).permutation(train)
    labelled = train[: round(share * len(train))]
    model = MTDNN(random_state=seed)
    if mode == "none":
        model.set_params(pretrain_epochs=0)
    others = x[train[len(labelled) :]] if mode == "on all training rows" else None
    model.fit(x[labelled], y[labelled], others)
    scores = torch.from_numpy(np.asarray(model.predict_proba(x[test])))
    return multilabel_metrics(scores, dataset.y[test], dataset.label_names)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.05, 0.25, 1.0])
    parser.add_argument("--only", nargs="+", choices=FILES, default=list(SETS))
    options = parser.parse_args(arguments)
    if options.seeds < 1 or not all(0 < share <= 1 for share in options.shares):
        parser.error("--seeds: expected at least 1; --shares: expected numbers in (0, 1]")
    print(
        "| data | labels | pretraining | micro-F1 | Hamming loss | mAP |\n|---|---|---|---|---|---|"
    )
    results = []
    for name in options.only:
        for share in options.shares:
            # With all labels there is nothing more to pretrain on.
            for mode in MODES[: 2 if share == 1 else 3]:
                path = options.data / FILES[name]
                runs = [fit(path, share, mode, seed) for seed in range(options.seeds)]
                results.append({"data": name, "share": share, "pretraining": mode, "runs": runs})
                cells = [mean_and_deviation([each[metric] for each in runs]) for metric in METRICS]
                print(f"| {name} | {share:.0%} | {mode} | {' | '.join(cells)} |", flush=True)
    write_json(options.out, {"results": results})


if __name__ == "__main__":
    main()
