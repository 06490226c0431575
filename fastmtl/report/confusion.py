"""Confusion matrices of tasks with several classes."""

from __future__ import annotations

from fastmtl._text import short
from fastmtl.report.labels import Confusion
from fastmtl.report.markup import Markup, number, tag

# Beyond this many classes a matrix is no longer read.
MAX_CLASSES = 40


def confusion_table(confusion: Confusion) -> Markup:
    """A matrix of counts, shaded by the share of the true class; the diagonal is right.

    Of more than 40 classes the most frequent are shown.
    """
    counts, names = confusion.counts, list(confusion.classes)
    said = f"accuracy {number(confusion.accuracy)}, macro-F1 {number(confusion.macro_f1)}; "
    said += "rows: true class, columns: decided class"
    if len(names) > MAX_CLASSES:
        most = counts.sum(1).argsort(descending=True, stable=True)[:MAX_CLASSES].sort().values
        said += f"; the {MAX_CLASSES} most frequent of {len(names)} classes"
        counts, names = counts[most][:, most], [names[index] for index in most.tolist()]
    totals = counts.sum(1).clamp(min=1)
    head = tag("tr", tag("th", ""), (tag("th", short(name, 14), scope="col") for name in names))
    body = [
        tag(
            "tr",
            tag("th", short(name, 18), scope="row"),
            (
                tag(
                    "td",
                    int(count),
                    style=f"--share:{float(count / totals[row]):.3f}",
                    class_="right" if row == column else None,
                    title=f"{name} taken for {names[column]}: {int(count)}",
                )
                for column, count in enumerate(counts[row])
            ),
        )
        for row, name in enumerate(names)
    ]
    return tag(
        "figure",
        tag("figcaption", tag("b", confusion.name), tag("span", said)),
        tag("div", tag("table", tag("thead", head), tag("tbody", body)), class_="scroll"),
        class_="confusion",
    )
