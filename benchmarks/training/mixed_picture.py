"""Draws what balancing changes in examples/mixed_tasks.py, means over five seeds, on new samples.

`python -m benchmarks.training.mixed_picture docs/images/mixed_tasks.png`
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import torch
from matplotlib import pyplot

import fastmtl
from fastmtl.training.plot_style import COLOURS

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "mixed_tasks.py"
TASKS = ("price", "sold", "kind")
STEPS, EVERY, SEEDS = 300, 10, 5


def follow(example: dict[str, Any], make_balancer: Any, seed: int) -> torch.Tensor:
    """Every EVERY steps the shares of "sold" and "kind" that are right, and the weights."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = example["Net"]()
    balancer = make_balancer(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, _, sold, kind = example["sample"](4096, torch.Generator().manual_seed(SEEDS))
    rows = []
    for step in range(STEPS + 1):
        if step % EVERY == 0:
            with torch.no_grad():
                _, logit, logits = model(x)
            right = ((logit > 0) == sold.bool()), logits.argmax(1) == kind
            rows.append([*(each.float().mean() for each in right), *balancer.weights.tolist()])
        balancer.backward(example["losses"](model, *example["sample"](256, generator)))
        optimizer.step()
        optimizer.zero_grad()
    return torch.tensor(rows)


def main(path: str) -> None:
    """Train and save the picture."""
    sys.argv[1:] = ["--steps", "1"]
    example = runpy.run_path(str(EXAMPLE))
    kinds = {
        "equal weights": ("--", lambda model: fastmtl.balancing.Equal(num_tasks=3)),
        "GradNorm": ("-", fastmtl.balancing.GradNorm),
    }
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    steps = range(0, STEPS + 1, EVERY)
    for name, (style, make) in kinds.items():
        curves = torch.stack([follow(example, make, seed) for seed in range(SEEDS)]).mean(0).T
        for task in (1, 2):
            label = f"{TASKS[task]}, {name}"
            left.plot(steps, curves[task - 1], style, color=COLOURS[task], label=label)
        if name == "GradNorm":
            for task, weight in zip(TASKS, curves[2:], strict=True):
                right.plot(steps, weight, color=COLOURS[TASKS.index(task)], label=task)
    left.set(title="share that is right", xlabel="step", ylim=(0.4, 1))
    left.legend(loc="lower right")
    right.set(title="weights of GradNorm", xlabel="step", ylim=(0, 2.4))
    right.legend(loc="upper center", ncols=3)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(sys.argv[1])
