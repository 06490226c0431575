"""Losses, figures and task weights over the epochs."""

from __future__ import annotations

from collections.abc import Sequence

from fastmtl._text import short
from fastmtl.report.chart import Chart, Line, Range, padded
from fastmtl.report.markup import Markup, join, number, tag
from fastmtl.training.history import EpochRecord

# Lines in colour: as many as there are colours.
MAX_COLOURED = 8


def epochs_charts(
    records: Sequence[EpochRecord], label_names: Sequence[str], best_epoch: int | None
) -> Markup:
    """Three charts: losses, mAP and micro-F1, task weights."""
    return tag(
        "div",
        _chart(
            "Loss",
            "mean of the tasks' unweighted losses",
            records,
            {
                "training": ("main", [_present(r.total_train_loss) for r in records]),
                "validation": ("second", [_present(r.total_val_loss) for r in records]),
            },
            best_epoch,
        ),
        _chart(
            "Validation",
            "after each epoch",
            records,
            _figures(records),
            best_epoch,
            bounds=(0.0, 1.0),
        ),
        _weights(records, label_names, best_epoch),
        class_="grid wide",
    )


def _figures(records: Sequence[EpochRecord]) -> dict[str, tuple[str, list[float | None]]]:
    """The lines of the figures that an epoch has."""
    lines = {
        "mAP": ("main", [record.map for record in records]),
        "micro-F1": ("second", [record.micro_f1 for record in records]),
        "macro-F1 of classes": ("c0", [record.macro_f1 for record in records]),
    }
    return {name: line for name, line in lines.items() if any(v is not None for v in line[1])}


def _weights(
    records: Sequence[EpochRecord], label_names: Sequence[str], best_epoch: int | None
) -> Markup:
    last = records[-1].weights
    order = sorted(range(len(label_names)), key=lambda task: -last[task])
    half = MAX_COLOURED // 2
    named = order if len(order) <= MAX_COLOURED else order[:half] + order[-half:]
    coloured = set(named)
    lines: dict[str, tuple[str, list[float | None]]] = {
        f"{task}": ("faint", [record.weights[task] for record in records])
        for task in order
        if task not in coloured
    }
    # Few tasks keep the colour of their column; of many, those that are named are told apart.
    colours = {task: task if len(order) <= MAX_COLOURED else k for k, task in enumerate(named)}
    legend = {}
    for task in named:
        style = f"c{colours[task]}"
        lines[f"{task}"] = (style, [record.weights[task] for record in records])
        legend[f"{short(label_names[task])} {number(last[task], 2)}"] = style
    said = "at the last step of each epoch"
    if len(named) < len(order):
        said += f"; the {half} highest and {half} lowest of {len(order)} in colour"
    return _chart("Task weights", said, records, lines, best_epoch, legend)


def _chart(
    title: str,
    said: str,
    records: Sequence[EpochRecord],
    lines: dict[str, tuple[str, list[float | None]]],
    best_epoch: int | None,
    legend: dict[str, str] | None = None,
    bounds: Range | None = None,
) -> Markup:
    epochs = [record.epoch for record in records]
    values = [value for _, own in lines.values() for value in own]
    last = epochs[-1] if epochs[-1] > epochs[0] else epochs[0] + 1
    first = epochs[0] if epochs[-1] > epochs[0] else epochs[0] - 1
    step = max(1, -(-(last - first) // 6))
    marks = [epoch for epoch in range(first, last + 1) if epoch % step == 0 or len(epochs) == 1]
    chart = Chart((first, last), bounds or padded(values), f"{title} over epochs", x_title="epoch")
    chart.x_ticks = epochs if len(epochs) == 1 else marks
    if best_epoch:
        chart.vertical(best_epoch, "guide")
    for style, own in lines.values():
        chart.line(Line(list(zip(epochs, own, strict=True)), style))
    legend = {name: style for name, (style, _) in lines.items()} if legend is None else legend
    return tag(
        "figure",
        tag("figcaption", tag("b", title), tag("span", said)),
        chart.render(),
        legend_of({**legend, **({f"best epoch, {best_epoch}": "guide"} if best_epoch else {})}),
    )


def legend_of(styles: dict[str, str]) -> Markup:
    """What the lines of a chart are, by their classes."""
    keys = [
        tag("span", tag("i", class_=f"key {style}"), name, class_="entry")
        for name, style in styles.items()
    ]
    return tag("div", join(keys), class_="legend")


def _present(value: float) -> float | None:
    return None if value != value else value
