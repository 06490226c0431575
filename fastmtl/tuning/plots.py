"""A figure of a search: how it went, and what its options have to do with the result."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastmtl.training.plot_style import BEST, COLOURS, png, style
from fastmtl.tuning.search import Search
from fastmtl.tuning.space import Choice, Range
from fastmtl.tuning.trial import Outcome, shown_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Where the value of an option without effect is drawn, below all others.
_ABSENT = -0.12
_COLOURS = "viridis"


def plot_trials(search: Search, outcomes: Sequence[Outcome]) -> bytes:
    """A PNG: the figure of every trial in turn with the best so far, and below it a line for each
    trial across its options, coloured by the figure, the best one bold.

    Args:
        search: what was tried.
        outcomes: the trials; one at least has a figure.

    Raises:
        ValueError: if none has.
    """
    scored = sorted(
        (each for each in outcomes if each.score is not None and math.isfinite(each.score)),
        key=lambda each: each.number,
    )
    if not scored:
        raise ValueError("outcomes: expected at least one trial with a figure, got none")
    with style():
        from matplotlib.figure import Figure

        width = max(7.6, 1.3 * (len(search.space) + 2))
        figure = Figure(figsize=(width, 7.2), layout="constrained")
        history, options = figure.subplots(2, 1, height_ratios=(1, 1.4))
        _history(history, search, scored)
        _options(options, search, scored)
        title = f"{len(outcomes)} trials, {search.monitor} on the validation split"
        figure.suptitle(title.replace("validation loss on", "loss on"), x=0.01, ha="left",
                        fontweight="bold")  # fmt: skip
        return png(figure)


def _history(axes: Axes, search: Search, scored: Sequence[Outcome]) -> None:
    from matplotlib.ticker import MaxNLocator

    for state, colour, face in (("finished", COLOURS[0], COLOURS[0]), ("pruned", BEST, "none")):
        chosen = [each for each in scored if each.state == state]
        if chosen:
            axes.scatter(
                [each.number for each in chosen],
                [search.shown(each.score or 0.0) for each in chosen],
                s=18, edgecolors=colour, facecolors=face, label=state, zorder=3,
            )  # fmt: skip
    finished = [each for each in scored if each.state == "finished"]
    best = itertools.accumulate((each.score or 0.0 for each in finished), max)
    numbers = [each.number for each in finished]
    axes.step(
        numbers, [search.shown(score) for score in best], where="post", color=COLOURS[1],
        label="best so far",
    )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial", ylabel=search.monitor)
    axes.legend(loc="best", ncols=3)


def _options(axes: Axes, search: Search, scored: Sequence[Outcome]) -> None:
    """Parallel coordinates: one vertical for each option, each from its least to its greatest."""
    import matplotlib as mpl
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    figures = [search.shown(each.score or 0.0) for each in scored]
    low, high = min(figures), max(figures)
    scale = ScalarMappable(
        Normalize(low, high if high > low else low + 1e-9), mpl.colormaps[_COLOURS]
    )
    finished = [each for each in scored if each.state == "finished"]
    best = max(finished or scored, key=lambda each: -math.inf if each.score is None else each.score)
    places = range(len(search.space))
    for each, figure in zip(scored, figures, strict=True):
        heights = [_height(values, each, name) for name, values in search.space.items()]
        bold = each is best
        axes.plot(
            places,
            heights,
            color=COLOURS[1] if bold else scale.to_rgba(figure),  # type: ignore[arg-type]
            linewidth=2.4 if bold else 1.0,
            alpha=1.0 if bold else 0.7,
            zorder=4 if bold else 2,
            marker="o",
            markersize=3,
            label="best" if bold else None,
        )
    for place, values in enumerate(search.space.values()):
        axes.axvline(place, color="#AAAAAA", lw=0.8, zorder=1)
        _name_values(axes, place, values)
    if any(name not in each.drawn for each in scored for name in search.space):
        axes.annotate("no effect", (0, _ABSENT), xytext=(-6, 0), textcoords="offset points",
                      ha="right", va="center", color=BEST)  # fmt: skip
    names = [
        f"{name}\n(log)" if isinstance(values, Range) and values.log else name
        for name, values in search.space.items()
    ]
    axes.set_xticks(list(places), names)
    axes.set_yticks([])
    axes.set_xlim(-0.5, len(search.space) - 0.3)
    axes.grid(False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0))
    axes.figure.colorbar(scale, ax=axes, label=search.monitor, pad=0.01)


def _height(values: Range | Choice, outcome: Outcome, name: str) -> float:
    """Where a trial's value stands, from 0 to 1."""
    if name not in outcome.drawn:
        return _ABSENT
    value = outcome.drawn[name]
    if isinstance(values, Choice):
        return values.values.index(value) / (len(values.values) - 1)
    low, high = values.low, values.high
    if values.log:
        return math.log(value / low) / math.log(high / low)
    height: float = (value - low) / (high - low)
    return height


def _name_values(axes: Axes, place: int, values: Range | Choice) -> None:
    known: Sequence[Any] = values.ends()
    for index, value in enumerate(known):
        axes.annotate(
            shown_value(value), (place, index / (len(known) - 1)), xytext=(5, 0),
            textcoords="offset points", va="center", fontsize=8, zorder=5,
            bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none",
                  "alpha": 0.8},
        )  # fmt: skip
