"""The papers' figures: training losses of all systems, and the task weights over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fastmtl.reproduce.plan import Plan
from fastmtl.reproduce.runner import Results
from fastmtl.training.history import mean_present
from fastmtl.training.plot_style import MAX_LINES, as_label, from_zero, headline, look, png, style
from fastmtl.training.run_spread import band, legend_below


def plot_training_losses(plan: Plan, results: Results) -> bytes:
    """A PNG of the training loss, mean over tasks, of each system: the mean of its runs, in the
    range of all.

    Losses of one gamma are comparable with each other: systems trained by cross-entropy and by the
    focal loss are drawn in panels of their own.
    """
    by_gamma: dict[float, list[Any]] = {}
    for system in plan.chosen:
        by_gamma.setdefault(system.options["gamma"], []).append(system)
    most = max(map(len, by_gamma.values()))
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.2 * len(by_gamma), 3.6 + 0.1 * most), layout="constrained")
        panels = figure.subplots(1, len(by_gamma), squeeze=False)[0]
        for panel, (gamma, systems) in zip(panels, sorted(by_gamma.items()), strict=True):
            losses = {
                system.row: [
                    list(map(mean_present, run["train_loss"])) for run in results[system.name]
                ]
                for system in systems
            }
            for place, (row, runs) in enumerate(losses.items()):
                band(panel, runs, label=as_label(row, 40), **look(place))
            name = "cross-entropy" if gamma == 0 else f"focal loss, gamma {gamma:g}"
            panel.set_title(name, loc="left")
            panel.set(xlabel="epoch", ylabel="training loss")
            from_zero(panel, [loss for runs in losses.values() for run in runs for loss in run])
            panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16))
        headline(figure, "Training losses", _of_runs(results))
        return png(figure)


def plot_task_weights(plan: Plan, results: Results, label_names: Sequence[str]) -> bytes | None:
    """A PNG of the task weights of each system that balances, means of its runs, or None.

    A task has one colour in all panels. Of more than 12 those that move furthest from 1 have one.
    """
    balanced = [s for s in plan.chosen if s.options["balancer"] != "equal"]
    if not balanced:
        return None
    columns = min(3, len(balanced))
    rows = math.ceil(len(balanced) / columns)
    named = _moving([results[system.name] for system in balanced], len(label_names))
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(3.4 * columns, 2.6 * rows + 1.2), layout="constrained")
        panels = list(figure.subplots(rows, columns, squeeze=False).flat)
        for panel, system in zip(panels, balanced, strict=False):
            for task, name in enumerate(label_names):
                runs = [[epoch[task] for epoch in run["weights"]] for run in results[system.name]]
                if task in named:
                    band(panel, runs, label=as_label(name), **look(task))
                else:
                    band(panel, runs[:1], color="#CCCCCC", linewidth=0.7, zorder=1)
            panel.set_title(as_label(system.row, 40), loc="left")
            panel.set(xlabel="epoch", ylabel="task weight")
        for spare in panels[len(balanced) :]:
            spare.set_visible(False)
        legend_below(figure, panels[0])
        headline(figure, "Task weights", _of_runs(results))
        return png(figure)


def _moving(results: Sequence[Sequence[dict[str, Any]]], num_tasks: int) -> set[int]:
    """The tasks whose last weights are furthest from 1, of all runs; all where they are few."""
    last = [run["weights"][-1] for runs in results for run in runs]
    far = [sum(abs(weights[task] - 1) for weights in last) for task in range(num_tasks)]
    return set(sorted(range(num_tasks), key=lambda task: -far[task])[:MAX_LINES])


def _of_runs(results: Results) -> str:
    runs = max(map(len, results.values()))
    return f"means of {runs} runs, in their range" if runs > 1 else ""
