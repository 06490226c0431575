"""Several runs in one figure: what differs by seed beside what differs by method."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastmtl._checks import need_choice
from fastmtl.training.history import EpochRecord, mean_present
from fastmtl.training.plot_style import (
    MAX_LINES,
    as_label,
    curve,
    from_zero,
    headline,
    look,
    png,
    style,
    whole_epochs,
)
from fastmtl.training.plots import FIGURES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TITLES = {
    **FIGURES,
    "total_val_loss": "validation loss",
    "total_train_loss": "training loss",
}
# Epochs of one run.
Values = Sequence[float | None]


def plot_runs(
    runs: Mapping[str, Sequence[Sequence[EpochRecord]]], figure: str = "map", title: str = ""
) -> bytes:
    """A PNG of one figure over the epochs: for each group of runs the mean, in the range of all.

    Runs of a group, such as those of several seeds, may end early: an epoch's mean and range are
    those of the runs that have it.

    Args:
        runs: histories (`read_history_csv`) by what is told apart, as balancers or models.
        figure: "map", "micro_f1", "macro_f1", "total_val_loss" or "total_train_loss".
        title: what all runs have in common.

    Raises:
        ValueError: for another figure, a group without runs, or a run without epochs.

    Examples:
        >>> seeds = [[EpochRecord(1, 0.5, [0.6], [0.5], [1.0], 0.7, 0.2, m)] for m in (0.7, 0.8)]
        >>> plot_runs({"dmtl": seeds})[1:4]
        b'PNG'
    """
    need_choice("figure", figure, tuple(_TITLES))
    if not runs or not all(group and all(group) for group in runs.values()):
        raise ValueError("runs: expected at least one run with epochs of each group, got none")
    with style():
        from matplotlib.figure import Figure

        drawn = Figure(figsize=(6.8, 4.0), layout="constrained")
        axes = drawn.subplots()
        for place, (name, group) in enumerate(runs.items()):
            counts = {len(group)}
            label = f"{as_label(name)}, {len(group)} runs" if counts != {1} else as_label(name)
            values = [[_finite(getattr(record, figure)) for record in run] for run in group]
            band(axes, values, label=label, **look(place))
        if figure in FIGURES:
            axes.set_ylim(0, 1.02)
        else:
            every = [
                getattr(record, figure)
                for group in runs.values()
                for run in group
                for record in run
            ]
            from_zero(axes, every)
        whole_epochs(axes, 1, max(len(run) for group in runs.values() for run in group))
        axes.set(xlabel="epoch", ylabel=_TITLES[figure])
        legend_below(drawn, axes)
        name = _TITLES[figure]
        headline(drawn, name if name in FIGURES.values() else name.capitalize(), title)
        return png(drawn)


def band(axes: Axes, runs: Sequence[Values], **how: Any) -> None:
    """The mean of runs over the epochs, and behind it the range of all; epochs count from 1."""
    epochs = range(1, max(map(len, runs)) + 1)
    means, lows, highs = [], [], []
    for epoch in epochs:
        there = [run[epoch - 1] for run in runs if len(run) >= epoch]
        present = [value for value in there if value is not None]
        means.append(mean_present(present))
        lows.append(min(present, default=math.nan))
        highs.append(max(present, default=math.nan))
    if len(runs) > 1:
        colour = how["color"]
        if len(epochs) == 1:
            axes.vlines([1], lows, highs, color=colour, alpha=0.35, linewidth=5)
        else:
            axes.fill_between(epochs, lows, highs, color=colour, alpha=0.12, linewidth=0)
    curve(axes, epochs, means, **how)


def legend_below(figure: Any, axes: Axes) -> None:
    """A legend below the axes; of more lines than it can hold, of the first."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > MAX_LINES:
        from matplotlib.lines import Line2D

        rest = f"and {len(labels) - MAX_LINES} more"
        handles = [*handles[:MAX_LINES], Line2D([], [], alpha=0)]
        labels = [*labels[:MAX_LINES], rest]
    figure.legend(handles, labels, loc="outside lower left", ncols=min(4, len(labels)))


def _finite(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
