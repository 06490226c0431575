"""The look that all figures of this package have in common."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastmtl._text import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which people with any colour vision tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D", "#5B5B5B")
DASHES = ("-", "--", ":", "-.")
TRAIN, VALIDATION, BEST = COLOURS[0], COLOURS[1], "#777777"
# Lines that a legend can hold.
MAX_LINES = 12
_MOST = 90

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


def look(place: int) -> dict[str, Any]:
    """Colour and dashes of the line of a task, or whatever has a place of its own.

    They depend on the place alone, so that a task looks the same in every figure and run.

    Examples:
        >>> look(0) == look(32), look(1) == look(9)
        (True, False)
    """
    dashes = DASHES[place // len(COLOURS) % len(DASHES)]
    return {"color": COLOURS[place % len(COLOURS)], "linestyle": dashes}


def curve(axes: Axes, epochs: Sequence[int], values: Sequence[float | None], **how: Any) -> None:
    """A line over the epochs, a dot where there is only one; it breaks where a value is None."""
    points = [math.nan if value is None else value for value in values]
    marker = "o" if len(epochs) == 1 else ""
    axes.plot(epochs, points, **{"linewidth": 1.5, "marker": marker, "markersize": 4, **how})


def from_zero(axes: Axes, values: Sequence[float | None]) -> None:
    """Let an axis of values reach from 0 to a little above the highest."""
    present = [value for value in values if value is not None and math.isfinite(value)]
    axes.set_ylim(0, 1.08 * max(present, default=0.0) or 1.0)


def whole_epochs(axes: Axes, first: int, last: int) -> None:
    """Mark epochs by whole numbers, from the first to the last."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    if last > first:
        axes.set_xlim(first, last)


def headline(figure: Figure, what: str, title: str) -> None:
    """Write what a figure shows, and of what, above it."""
    text = f"{what}: {title}" if title else what
    figure.suptitle(as_label(text, _MOST), x=0.01, ha="left", fontweight="bold")


def as_label(name: str, most: int = 24) -> str:
    """A name cut to a length, in which nothing is taken for mathematics."""
    return short(name, most).replace("$", r"\$")


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
