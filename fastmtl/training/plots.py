"""Figures of a run: losses by task, and task weights over time."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastmtl.training.history import EpochRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which people with any colour vision tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D", "#5B5B5B")
TRAIN, VALIDATION, BEST = COLOURS[0], COLOURS[1], "#777777"
MAX_PANELS = 15
MAX_LINES = 12

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.dpi": 150,
}


def plot_losses(
    records: Sequence[EpochRecord], label_names: Sequence[str], best_epoch: int | None = None
) -> bytes:
    """A PNG of the training and validation loss over the epochs: the mean, then task by task.

    With more than 15 tasks, those with the highest last validation losses are drawn.

    Args:
        records: the epochs.
        label_names: names of the T tasks.
        best_epoch: marked by a vertical line.

    Raises:
        ValueError: if there is no record.

    Examples:
        >>> records = [EpochRecord(1, 0.5, [0.6], [0.5], [1.0], 0.7, 0.2, 0.8)]
        >>> plot_losses(records, ["sea"], best_epoch=1)[1:4]
        b'PNG'
    """
    _check(records)
    tasks = list(range(len(label_names))) if len(label_names) > 1 else []
    if len(tasks) > MAX_PANELS:
        tasks = sorted(tasks, key=lambda task: -(records[-1].val_loss[task] or 0.0))[:MAX_PANELS]
    with style():
        from matplotlib.figure import Figure

        columns = min(4, len(tasks) + 1)
        rows = math.ceil((len(tasks) + 1) / columns)
        width = 6.4 if columns < 3 else 2.6 * columns
        figure = Figure(figsize=(width, 1.9 * rows + 0.9), layout="constrained")
        panels = list(figure.subplots(rows, columns, squeeze=False, sharex=True).flat)
        epochs = [record.epoch for record in records]
        _losses(
            panels[0],
            epochs,
            [record.total_train_loss for record in records],
            [record.total_val_loss for record in records],
            best_epoch,
        )
        first_title = "mean over tasks" if tasks else _short(label_names[0])
        panels[0].set_title(first_title, fontweight="bold", loc="left")
        for panel, task in zip(panels[1:], tasks, strict=False):
            _losses(
                panel,
                epochs,
                [record.train_loss[task] for record in records],
                [record.val_loss[task] for record in records],
                best_epoch,
            )
            panel.set_title(_short(label_names[task]), loc="left")
        for spare in panels[len(tasks) + 1 :]:
            spare.set_visible(False)
        for index in range(len(tasks) + 1):
            # The lowest visible panel of each column carries the axis.
            if index + columns > len(tasks):
                panels[index].tick_params(labelbottom=True)
                panels[index].set_xlabel("epoch")
        for row in range(rows):
            panels[row * columns].set_ylabel("loss")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
        title = "Losses"
        if 0 < len(tasks) < len(label_names):
            title += f" (the {len(tasks)} of {len(label_names)} tasks with the highest)"
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        return png(figure)


def plot_weights(records: Sequence[EpochRecord], label_names: Sequence[str]) -> bytes:
    """A PNG of every task's weight over the epochs, each line named at its end.

    With more than 12 tasks the ones that end highest and lowest are named and coloured, the others
    are grey.

    Args:
        records: the epochs.
        label_names: names of the T tasks.

    Raises:
        ValueError: if there is no record.

    Examples:
        >>> records = [EpochRecord(1, 0.5, [0.6], [0.5], [1.0], 0.7, 0.2, 0.8)]
        >>> plot_weights(records, ["sea"])[1:4]
        b'PNG'
    """
    _check(records)
    order = sorted(range(len(label_names)), key=lambda task: -records[-1].weights[task])
    half = MAX_LINES // 2
    named = order if len(order) <= MAX_LINES else order[:half] + order[-half:]
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.6, 4.2), layout="constrained")
        axes = figure.subplots()
        epochs = [record.epoch for record in records]
        for task in order:
            if task not in named:
                axes.plot(epochs, [r.weights[task] for r in records], color="#CCCCCC", lw=0.7)
        for place, task in enumerate(named):
            axes.plot(
                epochs,
                [record.weights[task] for record in records],
                color=COLOURS[place % len(COLOURS)],
                linestyle="-" if place < len(COLOURS) else "--",
                marker="o" if len(epochs) == 1 else "",
                linewidth=1.6,
            )
        axes.set(xlabel="epoch", ylabel="task weight")
        _whole_epochs(axes, epochs)
        _name_lines(axes, named, records[-1].weights, label_names)
        title = "Task weights"
        if len(named) < len(order):
            title += f" (the {half} highest and {half} lowest of {len(order)} in colour)"
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        return png(figure)


def _losses(
    axes: Axes,
    epochs: list[int],
    train: Sequence[float | None],
    validation: Sequence[float | None],
    best_epoch: int | None,
) -> None:
    marker = "o" if len(epochs) == 1 else ""
    for values, colour, name in (
        (train, TRAIN, "training"),
        (validation, VALIDATION, "validation"),
    ):
        points = [math.nan if value is None else value for value in values]
        axes.plot(epochs, points, color=colour, label=name, lw=1.5, marker=marker, ms=4)
    if best_epoch is not None:
        axes.axvline(best_epoch, color=BEST, lw=1, ls=":", clip_on=False, label="best epoch")
    axes.set_ylim(bottom=0)
    _whole_epochs(axes, epochs)


def _whole_epochs(axes: Axes, epochs: list[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    if len(epochs) > 1:
        axes.set_xlim(epochs[0], epochs[-1])


def _name_lines(
    axes: Axes, named: list[int], weights: Sequence[float], label_names: Sequence[str]
) -> None:
    """Write each line's name to the right of its end, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    gap = (high - low) / 18
    places: list[float] = []
    for task in named:
        ceiling = places[-1] - gap if places else high
        places.append(min(weights[task], ceiling))
    # Names pushed below the axes move up again, from the lowest on.
    floor = low
    for index in range(len(places) - 1, -1, -1):
        places[index] = max(places[index], floor)
        floor = places[index] + gap
    axes.set_ylim(low, high)
    for index, (task, place) in enumerate(zip(named, places, strict=True)):
        axes.annotate(
            f"{_short(label_names[task])}  {weights[task]:.2f}",
            xy=(1.0, place),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=COLOURS[index % len(COLOURS)],
            annotation_clip=False,
        )


def _short(name: str) -> str:
    # A dollar would start mathematical text.
    name = name.replace("$", r"\$")
    return name if len(name) <= 24 else name[:23] + "…"


def _check(records: Sequence[EpochRecord]) -> None:
    if not records:
        raise ValueError("records: expected at least one epoch, got none")


def style() -> Any:
    """A context in which figures have the look of this package."""
    import matplotlib as mpl

    return mpl.rc_context(STYLE)


def png(figure: Figure) -> bytes:
    """The figure as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
