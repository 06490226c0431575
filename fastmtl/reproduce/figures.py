"""The papers' figures: training losses of all systems, and the task weights over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fastmtl.reproduce.plan import Plan
from fastmtl.reproduce.runner import Results
from fastmtl.training.history import mean_present
from fastmtl.training.plots import COLOURS, png, style
from fastmtl.training.report import MAX_LABELS

_LINES = ("-", "--", ":")


def plot_training_losses(plan: Plan, results: Results) -> bytes:
    """A PNG of the training loss, mean over tasks, of each system's first run.

    Losses of one gamma are comparable with each other: systems trained by cross-entropy and by the
    focal loss are drawn in panels of their own.
    """
    by_gamma: dict[float, list[Any]] = {}
    for system in plan.chosen:
        by_gamma.setdefault(system.options["gamma"], []).append(system)
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.2 * len(by_gamma), 3.4), layout="constrained")
        panels = figure.subplots(1, len(by_gamma), squeeze=False)[0]
        for panel, (gamma, systems) in zip(panels, sorted(by_gamma.items()), strict=True):
            for place, system in enumerate(systems):
                losses = [mean_present(losses) for losses in results[system.name][0]["train_loss"]]
                _line(panel, losses, place, system.row)
            name = "cross-entropy" if gamma == 0 else f"focal loss, gamma {gamma:g}"
            panel.set_title(name, loc="left")
            panel.set(xlabel="epoch", ylabel="training loss")
            panel.set_ylim(bottom=0)
            panel.legend()
        return png(figure)


def plot_task_weights(plan: Plan, results: Results, label_names: Sequence[str]) -> bytes | None:
    """A PNG of the task weights of the first run of each system that balances, or None."""
    balanced = [s for s in plan.chosen if s.options["balancer"] != "equal"]
    if not balanced:
        return None
    columns = min(3, len(balanced))
    rows = math.ceil(len(balanced) / columns)
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(3.4 * columns, 2.6 * rows + 0.7), layout="constrained")
        panels = list(figure.subplots(rows, columns, squeeze=False).flat)
        for panel, system in zip(panels, balanced, strict=False):
            weights = results[system.name][0]["weights"]
            for task, name in enumerate(label_names):
                _line(panel, [epoch[task] for epoch in weights], task, name)
            panel.set_title(system.row, loc="left")
            panel.set(xlabel="epoch", ylabel="task weight")
        for spare in panels[len(balanced) :]:
            spare.set_visible(False)
        if len(label_names) <= MAX_LABELS:
            handles = panels[0].get_legend_handles_labels()
            figure.legend(*handles, loc="outside lower center", ncols=min(4, len(label_names)))
        return png(figure)


def _line(panel: Any, values: Sequence[float], place: int, name: str) -> None:
    panel.plot(
        range(1, len(values) + 1),
        values,
        color=COLOURS[place % len(COLOURS)],
        linestyle=_LINES[place // len(COLOURS) % len(_LINES)],
        marker="o" if len(values) == 1 else "",
        label=name,
    )
