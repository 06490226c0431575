"""The fusion graph, a drawing a level: vertices as large as their importance, edges by weight."""

from __future__ import annotations

import cmath
import math
from collections.abc import Mapping, Sequence

from fastmtl._text import short
from fastmtl.report.chart import dot, text
from fastmtl.report.inspected import Graph
from fastmtl.report.markup import Markup, number, tag

WIDTH = 320
# Of more edges the heaviest are drawn.
MAX_EDGES = 30
# Up to here every edge has its weight written on it.
MAX_WRITTEN = 6
# Vertices that are named, the most important; all tell their name when they are pointed at.
MAX_NAMED = 12
_RADIUS, _INNER = 112, 48

Weights = Sequence[Mapping[str, float]]


def graph_levels(graph: Graph, weights: Weights) -> list[Markup]:
    """A drawing for each level from 2 on; of a single modality none.

    Args:
        graph: which vertices are joined.
        weights: importances of the modalities, then the weights of each level's edges, by name.
    """
    drawings = []
    importance = {name: weights[0][name] for name in graph.modalities}
    below: dict[str, float] = {}
    for index, (edges, names) in enumerate(zip(graph.edges, graph.names, strict=True)):
        vertices = {**below, **importance}
        level = weights[index + 1]
        drawn = _drawing(vertices, len(below), edges, [level[name] for name in names], names)
        drawings.append(
            tag(
                "figure",
                tag("figcaption", tag("b", f"Level {index + 2}"), _said(len(names))),
                drawn,
                class_="graph",
            )
        )
        below = dict(level)
    return drawings


def weights_table(graph: Graph) -> Markup:
    """Mean and standard deviation over the samples of every importance and edge weight."""
    rows = [
        tag(
            "tr",
            tag("td", place + 1),
            tag("th", name, scope="row"),
            tag("td", number(mean)),
            tag("td", number(graph.deviations[place][name])),
        )
        for place, level in enumerate(graph.means)
        for name, mean in level.items()
    ]
    head = tag("tr", (tag("th", each) for each in ("level", "vertex or edge", "mean", "deviation")))
    table = tag("table", tag("thead", head), tag("tbody", rows))
    return tag("div", table, class_="scroll")


def _drawing(
    vertices: dict[str, float],
    below: int,
    edges: Sequence[tuple[int, int]],
    weights: list[float],
    names: Sequence[str],
) -> Markup:
    places = _places(len(vertices), below, edges)
    heaviest = sorted(range(len(edges)), key=lambda edge: -weights[edge])[:MAX_EDGES]
    lines, written = [], []
    for edge in sorted(heaviest, key=lambda edge: weights[edge]):
        a, b = (places[vertex] for vertex in edges[edge])
        # Equal weights are lines of 2.5 pixels.
        width = min(10.0, 0.4 + 2.1 * max(weights[edge], 0.0) * len(edges))
        title = tag("title", f"{names[edge]}: {number(weights[edge])}")
        ends = f"M{a.real:.1f} {a.imag:.1f}L{b.real:.1f} {b.imag:.1f}"
        lines.append(tag("path", title, d=ends, class_="edge", style=f"stroke-width:{width:.1f}"))
        if len(edges) <= MAX_WRITTEN:
            middle = (a + b) / 2
            shown = number(weights[edge], 2)
            written.append(text(middle.real, middle.imag + 3.5, shown, "middle", "weight"))
    dots, labels = [], []
    most = max(max(map(abs, vertices.values())), 1e-12)
    named = sorted(vertices, key=lambda name: -vertices[name])[:MAX_NAMED]
    for index, (name, importance) in enumerate(vertices.items()):
        place, inside = places[index], below > 0 and index >= below
        radius = 5 + 8 * math.sqrt(abs(importance) / most)
        said = f"{name}: {number(importance)}"
        style = "joined" if index < below else "main"
        dots.append(dot(place.real, place.imag, radius, style, said))
        if name in named:
            labels.append(_label(place, radius, name, importance, inside=inside))
    top = min(place.imag for place in places) - 46
    bottom = max(place.imag for place in places) + 46
    box = f"0 {top:.0f} {WIDTH} {bottom - top:.0f}"
    said = f"weights of {', '.join(names[:3])}"
    parts = (lines, dots, written, labels)
    return tag("svg", parts, viewBox=box, class_="chart", role="img", aria_label=said)


def _label(
    place: complex, radius: float, name: str, importance: float, *, inside: bool
) -> list[Markup | None]:
    """The name and importance of a vertex, away from the middle, or for one inside towards it."""
    above = (place.imag < -4) != inside
    y = place.imag - radius - 15 if above else place.imag + radius + 11
    x = min(max(place.real, 50), WIDTH - 50)
    return [
        text(x, y, short(name, 20), "middle", "name"),
        text(x, y + 11, number(importance, 2), "middle", "weight"),
    ]


def _places(count: int, below: int, edges: Sequence[tuple[int, int]]) -> list[complex]:
    """Where the vertices are, around (WIDTH / 2, 0): on a circle those of the level below.

    A modality stands inside of it, near the vertices that it is joined with.
    """
    middle = complex(WIDTH / 2, 0)
    outside = below or count
    outer = [_turn(index, outside) for index in range(outside)]
    wanted = []
    for vertex in range(outside, count):
        joined = [outer[a] for a, b in edges if b == vertex and a < below]
        wanted.append((cmath.phase(sum(joined, 0j)), vertex))
    inner = {}
    for order, (_, vertex) in enumerate(sorted(wanted)):
        angle = min(wanted)[0] + 2 * math.pi * order / len(wanted)
        inner[vertex] = cmath.rect(_INNER, angle)
    inside = [inner[vertex] for vertex in range(outside, count)]
    return [middle + z for z in (*(_RADIUS * z for z in outer), *inside)]


def _turn(index: int, count: int) -> complex:
    """Places on a circle, the first on top; of two, left and right."""
    start = math.pi if count == 2 else -math.pi / 2
    return cmath.rect(1.0, start + 2 * math.pi * index / count)


def _said(edges: int) -> Markup:
    shown = f", the {MAX_EDGES} heaviest drawn" if edges > MAX_EDGES else ""
    return tag("span", f"{edges} edge{'s' if edges > 1 else ''}{shown}")
