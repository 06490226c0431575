"""Figures of a run: losses by task, validation figures, and task weights over the epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastmtl.training.history import EpochRecord
from fastmtl.training.plot_style import (
    BEST,
    COLOURS,
    MAX_LINES,
    TRAIN,
    VALIDATION,
    as_label,
    curve,
    from_zero,
    headline,
    look,
    png,
    style,
    whole_epochs,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_PANELS = 15
FIGURES = {"map": "mAP", "micro_f1": "micro-F1", "macro_f1": "macro-F1 of classes"}


def plot_losses(
    records: Sequence[EpochRecord],
    label_names: Sequence[str],
    best_epoch: int | None = None,
    title: str = "",
) -> bytes:
    """A PNG of the training and validation loss over the epochs: the mean, then task by task.

    With more than 15 tasks, those with the highest last validation losses are drawn.

    Args:
        records: the epochs.
        label_names: names of the T tasks.
        best_epoch: marked by a vertical line.
        title: what the losses are of: model, balancer and data.

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
        figure = Figure(figsize=(width, 1.9 * rows + 1.1), layout="constrained")
        panels = list(figure.subplots(rows, columns, squeeze=False, sharex=True).flat)
        train = [record.total_train_loss for record in records]
        val = [record.total_val_loss for record in records]
        _losses(panels[0], records, train, val, best_epoch)
        first_title = "mean over tasks" if tasks else as_label(label_names[0])
        panels[0].set_title(first_title, fontweight="bold", loc="left")
        for panel, task in zip(panels[1:], tasks, strict=False):
            own_train = [record.train_loss[task] for record in records]
            own_val = [record.val_loss[task] for record in records]
            _losses(panel, records, own_train, own_val, best_epoch)
            panel.set_title(as_label(label_names[task]), loc="left")
        for spare in panels[len(tasks) + 1 :]:
            spare.set_visible(False)
        for index in range(len(tasks) + 1):
            # The lowest visible panel of each column carries the axis.
            if index + columns > len(tasks):
                panels[index].tick_params(labelbottom=True)
                panels[index].set_xlabel("epoch")
        for row in range(rows):
            panels[row * columns].set_ylabel("loss")
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower left", ncols=3)
        some = 0 < len(tasks) < len(label_names)
        shown = f"Losses, the highest of {len(label_names)} tasks" if some else "Losses"
        headline(figure, shown, title)
        return png(figure)


def plot_figures(
    records: Sequence[EpochRecord], best_epoch: int | None = None, title: str = ""
) -> bytes:
    """A PNG of the validation figures over the epochs: mAP, micro-F1, and macro-F1 of classes.

    Args:
        records: the epochs; a figure that none of them has is left out.
        best_epoch: marked by a vertical line.
        title: what the figures are of.

    Raises:
        ValueError: if there is no record.

    Examples:
        >>> records = [EpochRecord(1, 0.5, [0.6], [0.5], [1.0], 0.7, 0.2, 0.8)]
        >>> plot_figures(records)[1:4]
        b'PNG'
    """
    _check(records)
    epochs = [record.epoch for record in records]
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.4, 3.8), layout="constrained")
        axes = figure.subplots()
        for place, (key, name) in enumerate(FIGURES.items()):
            values = [getattr(record, key) for record in records]
            if any(value is not None for value in values):
                curve(axes, epochs, values, label=name, **look(place))
        _mark(axes, best_epoch)
        axes.set(xlabel="epoch", ylabel="validation", ylim=(0, 1.02))
        whole_epochs(axes, epochs[0], epochs[-1])
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=4)
        headline(figure, "Validation", title)
        return png(figure)


def plot_weights(
    records: Sequence[EpochRecord], label_names: Sequence[str], title: str = ""
) -> bytes:
    """A PNG of every task's weight over the epochs, each line named at its end.

    A task has the colour of its place in `label_names`, in every run. With more than 12 tasks the
    ones that end highest and lowest are named and coloured, the others are grey.

    Args:
        records: the epochs.
        label_names: names of the T tasks.
        title: what the weights are of.

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
    epochs = [record.epoch for record in records]
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.6, 4.2), layout="constrained")
        axes = figure.subplots()
        for task in order:
            weights = [record.weights[task] for record in records]
            if task in named:
                curve(axes, epochs, weights, **look(task))
            else:
                curve(axes, epochs, weights, color="#CCCCCC", linewidth=0.7, zorder=1)
        axes.set(xlabel="epoch", ylabel="task weight")
        # Above and below there is room for the names.
        low, high = axes.get_ylim()
        room = 0.04 * (high - low)
        axes.set_ylim(low - room if low < 0 else max(low - room, 0), high + room)
        whole_epochs(axes, epochs[0], epochs[-1])
        _name_lines(axes, named, records[-1].weights, label_names)
        if len(named) < len(order):
            axes.set_title(
                f"named: the {half} highest and {half} lowest of {len(order)}", loc="left"
            )
        headline(figure, "Task weights", title)
        return png(figure)


def _losses(
    axes: Axes,
    records: Sequence[EpochRecord],
    train: Sequence[float | None],
    validation: Sequence[float | None],
    best_epoch: int | None,
) -> None:
    epochs = [record.epoch for record in records]
    curve(axes, epochs, train, color=TRAIN, label="training")
    curve(axes, epochs, validation, color=VALIDATION, label="validation")
    _mark(axes, best_epoch)
    from_zero(axes, [*train, *validation])
    whole_epochs(axes, epochs[0], epochs[-1])


def _mark(axes: Axes, best_epoch: int | None) -> None:
    if best_epoch is not None:
        axes.axvline(best_epoch, color=BEST, lw=1, ls=":", label="best epoch", zorder=1)


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
    for task, place in zip(named, places, strict=True):
        axes.annotate(
            f"{as_label(label_names[task])}  {weights[task]:.2f}",
            xy=(1.0, place),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=COLOURS[task % len(COLOURS)],
            annotation_clip=False,
        )


def _check(records: Sequence[EpochRecord]) -> None:
    if not records:
        raise ValueError("records: expected at least one epoch, got none")
