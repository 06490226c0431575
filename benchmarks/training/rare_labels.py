"""Average precision by how frequent a label is: balancers beside equal weights.

    python -m benchmarks.training.rare_labels OUT [--seeds 3] [--balancers equal dmtl]
        [options of fastmtl train]

Trains with each balancer on the same data and seeds, and prints a Markdown table: the labels in
groups by their share of positives in the training split, the mean over a group of the test split's
average precision, and the differences of the balancers from the first, with the deviation over the
seeds. Finished runs in OUT are kept.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.training.options import add_training_options
from fastmtl.training import TrainConfig, Trainer

# Upper bounds of the groups' shares of positives.
GROUPS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 1.0)


def precisions(trainer: Trainer, out: Path) -> Tensor:
    """Each label's average precision on the test split, NaN without a positive; (T,)."""
    begun = (out / "checkpoint.safetensors").exists()
    test = trainer.fit(resume=begun, overwrite=not begun)["test"]
    found = test["average_precision"].values()
    return torch.tensor([float("nan") if each is None else each for each in found])


def groups(shares: Tensor) -> dict[str, Tensor]:
    """Which labels (T,) belong to each group that has any."""
    found, lower = {}, 0.0
    for upper in GROUPS:
        chosen = (shares > lower) & (shares <= upper)
        if bool(chosen.any()):
            found[f"{lower:.1%} to {upper:.1%}"] = chosen
        lower = upper
    return found


def rows(shares: Tensor, found: dict[str, list[Tensor]]) -> list[str]:
    """The table's rows: a group's figures by balancer, from (T,) for each seed."""
    first, *others = found
    lines = []
    everything = {"all": torch.ones_like(shares, dtype=torch.bool)}
    for name, chosen in {**everything, **groups(shares)}.items():
        means = {
            balancer: [float(each[chosen].nanmean()) for each in runs]
            for balancer, runs in found.items()
        }
        cells = [f"{statistics.mean(means[first]):.4f}"]
        for balancer in others:
            pairs = zip(means[balancer], means[first], strict=True)
            gains = [own - plain for own, plain in pairs]
            spread = statistics.stdev(gains) if len(gains) > 1 else 0.0
            cells.append(f"{statistics.mean(gains):+.4f} ± {spread:.4f}")
        lines.append(f"| {name} | {int(chosen.sum())} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--balancers", nargs="+", default=["equal", "dmtl"])
    add_training_options(parser, but=("seed", "balancer"))
    given: dict[str, Any] = vars(parser.parse_args())
    out, seeds, balancers = (given.pop(name) for name in ("out", "seeds", "balancers"))
    options = {name: value for name, value in given.items() if value is not None}
    found: dict[str, list[Tensor]] = {balancer: [] for balancer in balancers}
    shares = torch.empty(0)
    for seed in range(seeds):
        for balancer in balancers:
            config = TrainConfig(**{**options, "balancer": balancer, "seed": seed})
            trainer = Trainer.from_config(config, out / f"{balancer}-{seed}")
            if not seed:
                shares = trainer.batches.targets.cpu()[trainer.rows["train"]].nanmean(0)
            found[balancer].append(precisions(trainer, out / f"{balancer}-{seed}"))
    titles = [balancers[0], *(f"{each} - {balancers[0]}" for each in balancers[1:])]
    print(f"| share of positives | labels | {' | '.join(titles)} |")
    print("|---|---|" + "---|" * len(titles))
    print("\n".join(rows(shares, found)))


if __name__ == "__main__":
    main()
