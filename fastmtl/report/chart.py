"""Line charts as SVG that takes its colours from the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from fastmtl.report.markup import Markup, join, tag

Range = tuple[float, float]
Points = Sequence[tuple[float, float | None]]


@dataclass(frozen=True)
class Line:
    """A line through points; it breaks where y is None, and `style` is a class of the page's."""

    points: Points
    style: str
    dots: bool = False


@dataclass
class Chart:
    """Axes of a size in pixels over ranges of x and y, and what is drawn in them.

    Args:
        x: the range of x.
        y: that of y.
        label: says what is drawn to those who cannot see it.
        width: of the whole.
        height: of the whole.
        x_title: below the axis.
        y_title: above it.
        x_ticks: where x is marked; None for round numbers.
    """

    x: Range
    y: Range
    label: str
    width: int = 320
    height: int = 200
    x_title: str = ""
    y_title: str = ""
    x_ticks: Sequence[float] | None = None
    parts: list[Markup] = field(default_factory=list)

    left, right, top, bottom = 34, 10, 20, 32

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point is, in pixels."""
        return (
            self.left + (x - self.x[0]) / _span(self.x) * (self.width - self.left - self.right),
            self.height
            - self.bottom
            - (y - self.y[0]) / _span(self.y) * (self.height - self.top - self.bottom),
        )

    def line(self, line: Line) -> None:
        """Draw a line, and dots where it is asked for or a point stands alone."""
        for run in _runs(line.points):
            placed = [self.at(x, y) for x, y in run]
            if len(placed) > 1:
                path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
                self.parts.append(tag("path", d=path, class_=f"line {line.style}"))
            if line.dots or len(placed) == 1:
                self.parts += [dot(x, y, 3, line.style) for x, y in placed]

    def dot(self, x: float, y: float, style: str, radius: float = 3.5, title: str = "") -> None:
        """Draw a dot."""
        self.parts.append(dot(*self.at(x, y), radius, style, title))

    def vertical(self, x: float, style: str) -> None:
        """Draw a line from the bottom to the top."""
        self.line(Line([(x, self.y[0]), (x, self.y[1])], style))

    def bar(self, x: Range, height: float, style: str) -> None:
        """Draw a bar from the bottom up."""
        (x0, y0), (x1, y1) = self.at(x[0], self.y[0]), self.at(x[1], height)
        sizes = {"width": f"{x1 - x0:.1f}", "height": f"{y0 - y1:.1f}"}
        self.parts.append(tag("rect", x=f"{x0:.1f}", y=f"{y1:.1f}", **sizes, class_=style))

    def render(self) -> Markup:
        """The chart as an element."""
        return tag(
            "svg",
            self._axes(),
            self.parts,
            viewBox=f"0 0 {self.width} {self.height}",
            class_="chart",
            role="img",
            aria_label=self.label,
        )

    def _axes(self) -> Markup:
        (x0, y0), (x1, _) = self.at(self.x[0], self.y[0]), self.at(self.x[1], self.y[1])
        grid, texts = [], []
        for tick in ticks(self.y, 4):
            _, y = self.at(self.x[0], tick)
            grid.append(f"M{x0:.1f} {y:.1f}H{x1:.1f}")
            texts.append(text(x0 - 5, y + 3.5, _shown(tick), "end"))
        marked = ticks(self.x, 5) if self.x_ticks is None else self.x_ticks
        for tick in marked:
            x, _ = self.at(tick, self.y[0])
            texts.append(text(x, y0 + 13, _shown(tick), "middle"))
        texts.append(text((x0 + x1) / 2, self.height - 4, self.x_title, "middle"))
        texts.append(text(2, 11, self.y_title, "start"))
        return join(tag("path", d="".join(grid), class_="rules"), texts)


def dot(x: float, y: float, radius: float, style: str, title: str = "") -> Markup:
    """A dot at a place in pixels; `title` is shown to who points at it."""
    named = tag("title", title) if title else None
    place = {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": f"{radius:.1f}"}
    return tag("circle", named, **place, class_=f"dot {style}")


def text(x: float, y: float, content: str, anchor: str, style: str | None = None) -> Markup | None:
    """Text at a place in pixels, None where there is none."""
    if not content:
        return None
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}"}
    return tag("text", content, **place, text_anchor=anchor, class_=style)


def ticks(bounds: Range, most: int) -> list[float]:
    """At most `most` + 1 round numbers within a range, in steps of 1, 2 or 5 times a power of ten.

    Examples:
        >>> ticks((0.0, 1.0), 5)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = _span(bounds) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= rough * (1 - 1e-9))
    first = math.ceil(bounds[0] / step - 1e-9)
    last = math.floor(bounds[1] / step + 1e-9)
    return [round(k * step, 10) for k in range(first, last + 1)]


def padded(values: Sequence[float | None], *, zero: bool = True) -> Range:
    """A range that holds the values with room above, from 0 up where `zero`."""
    present = [value for value in values if value is not None and math.isfinite(value)]
    if not present:
        return (0.0, 1.0)
    low, high = min(present), max(present)
    low = min(0.0, low) if zero else low
    margin = 0.05 * (high - low) or 0.5 * abs(high) or 0.5
    return (low if zero else low - margin, high + margin)


def _span(bounds: Range) -> float:
    return bounds[1] - bounds[0] or 1.0


def _runs(points: Points) -> list[list[tuple[float, float]]]:
    """The points between those that are missing."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None or not math.isfinite(y):
            runs.append([])
        else:
            runs[-1].append((x, y))
    return [run for run in runs if run]


def _shown(tick: float) -> str:
    return f"{tick:g}"
