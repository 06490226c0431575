"""The table of all labels, and a card for each."""

from __future__ import annotations

from fastmtl.report.curves import (
    Operating,
    precision_recall,
    precision_recall_chart,
    reliability_chart,
)
from fastmtl.report.labels import Concept
from fastmtl.report.markup import Markup, join, number, tag

# Cards that stand open; of more labels, those with the lowest average precision.
OPEN_CARDS = 12


def concepts_table(concepts: list[Concept], threshold: float) -> Markup:
    """A row a label: positives, AP, and what the run's threshold and its own decide."""
    groups = tag(
        "tr",
        tag("td", "", colspan=3),
        tag("th", f"at {threshold:.3g}, the run's", colspan=3, scope="colgroup"),
        tag("th", "at a threshold of its own", colspan=4, scope="colgroup"),
    )
    heads = ["concept", "positives", "AP", "precision", "recall", "F1"]
    heads += ["threshold", "precision", "recall", "F1"]
    starts = {3, 6}
    columns = tag(
        "tr",
        (
            tag("th", name, scope="col", class_="first" if place in starts else None)
            for place, name in enumerate(heads)
        ),
    )
    body = tag("tbody", (_row(concept) for concept in concepts))
    table = tag("table", tag("thead", groups, columns), body, class_="concepts")
    return tag("div", table, class_="scroll tall", tabindex=0)


def concept_cards(concepts: list[Concept], names: dict[int, str]) -> Markup:
    """A card a label, the first twelve open.

    Args:
        concepts: the labels.
        names: of the samples, by row.
    """
    if len(concepts) <= OPEN_CARDS:
        return tag("div", (_card(concept, names) for concept in concepts), class_="grid")
    order = sorted(
        concepts,
        key=lambda each: (
            each.average_precision is None,
            each.average_precision or 0.0,
        ),
    )
    rest = order[OPEN_CARDS:]
    return join(
        tag("p", f"The {OPEN_CARDS} with the lowest AP:", class_="said"),
        tag("div", (_card(concept, names) for concept in order[:OPEN_CARDS]), class_="grid"),
        tag(
            "details",
            tag("summary", f"The other {len(rest)} concepts, by rising AP"),
            tag("div", (_card(concept, names) for concept in rest), class_="grid"),
        ),
    )


def _row(concept: Concept) -> Markup:
    ap = concept.average_precision
    bar = tag("span", class_="bar", style=f"--share:{ap or 0:.3f}")
    return tag(
        "tr",
        tag("th", concept.name, scope="row"),
        tag("td", f"{concept.positives:,}", data_value=concept.positives),
        tag("td", bar, number(ap), data_value=-1 if ap is None else f"{ap:.6f}", class_="ap"),
        _cells(concept.run),
        tag("td", number(concept.tuned.threshold), class_="first"),
        _cells(concept.tuned, first=None),
    )


def _cells(each: Operating, first: str | None = "first") -> list[Markup]:
    values = (each.precision, each.recall, each.f1)
    return [
        tag("td", number(value, 2), class_=first if place == 0 else None)
        for place, value in enumerate(values)
    ]


def _card(concept: Concept, names: dict[int, str]) -> Markup:
    share = concept.positives / max(len(concept.targets), 1)
    said = f"{concept.positives:,} of {len(concept.targets):,}, {share:.1%}"
    figures = [
        ("AP", number(concept.average_precision)),
        ("F1 tuned", number(concept.tuned.f1, 2)),
        ("temperature", number(concept.temperature, 2)),
    ]
    points = precision_recall(concept.probabilities, concept.targets)
    charts: Markup = tag("p", "No positive sample to draw curves of.", class_="said")
    if points:
        charts = tag(
            "div",
            precision_recall_chart(points, share, concept.run, concept.tuned),
            reliability_chart(concept.probabilities, concept.targets, concept.temperature),
            class_="pair",
        )
    return tag(
        "article",
        tag("h3", concept.name),
        tag("p", said, class_="said"),
        tag("dl", (tag("div", tag("dt", k), tag("dd", v)) for k, v in figures)),
        charts,
        _extremes(concept, names),
        class_="card",
    )


def _extremes(concept: Concept, names: dict[int, str]) -> Markup:
    titles = {"best": "surest hits", "missed": "least sure positives", "false": "surest negatives"}
    lists = []
    for kind, places in concept.extremes().items():
        items = [
            tag(
                "li",
                tag("span", names[int(concept.rows[place])], class_="clip"),
                tag("b", number(float(concept.probabilities[place]), 2)),
                title=names[int(concept.rows[place])],
            )
            for place in places
        ]
        if items:
            lists.append(tag("div", tag("h4", titles[kind]), tag("ul", items)))
    return tag("div", lists, class_="extremes")
