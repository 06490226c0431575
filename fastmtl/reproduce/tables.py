"""A comparison as text: for the terminal and as Markdown."""

from __future__ import annotations

import textwrap

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from fastmtl.reproduce.comparison import ERRORS, Comparison, Figure
from fastmtl.reproduce.systems import TABLES
from fastmtl.training.report import FIGURES, MAX_LABELS, shown

_NAMES = {
    **FIGURES,
    "one_error": "one-error",
    "ranking_loss": "ranking loss",
    "coverage": "coverage",
    "lrap": "LRAP",
}
Cells = list[list[str]]


def systems_tables() -> list[Table]:
    """Every system of the papers, a table for each paper."""
    tables = []
    for paper in TABLES.values():
        title = f"{paper.name}: {paper.paper}"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
        table.add_column("system", no_wrap=True)
        table.add_column("row", no_wrap=True)
        table.add_column("made of", overflow="fold")
        for system in paper.systems:
            mark = "" if system.name in paper.default else " *"
            table.add_row(system.name + mark, system.row, system.parts)
        tables.append(table)
    return tables


def results_cells(comparison: Comparison) -> Cells:
    """The main table with its header: figures (those there are), p-value and speed of each row."""
    figures = [
        name
        for name in comparison.plan.paper.figures
        if any(row.figures[name].mean is not None for row in comparison.rows)
    ]
    arrows = {name: "↓" if name in ERRORS else "↑" for name in figures}
    header = ["", *(f"{_NAMES[name]} {arrows[name]}" for name in figures)]
    header += ["p", "epochs", f"s/{comparison.unit}"]
    cells = [header]
    for row in comparison.rows:
        cells.append(
            [
                row.name,
                *(_show(row.figures[name]) for name in figures),
                "best" if row.system == comparison.best else shown(row.p_value, 3),
                shown(row.epochs.mean, 1),
                shown(row.seconds.mean, 2),
            ]
        )
    return cells


def accuracy_cells(comparison: Comparison) -> Cells:
    """Accuracy of each concept (rows) by system (columns); empty beyond 24 concepts."""
    labels = list(comparison.rows[0].accuracy)
    if len(labels) > MAX_LABELS:
        return []
    cells = [["accuracy", *(row.name for row in comparison.rows)]]
    cells += [[label, *(_show(r.accuracy[label]) for r in comparison.rows)] for label in labels]
    return cells


def notes(comparison: Comparison) -> str:
    """What the numbers are of."""
    plan = comparison.plan
    kind = "folds" if plan.cross_validates else "seeds"
    text = f"{plan.paper.paper}. Data: {plan.data}."
    if comparison.runs == 1:
        text += " One run of each row."
    else:
        text += f" Mean ± deviation over {comparison.runs} {kind}."
        main = _NAMES[plan.paper.figures[0]]
        text += f" p: Wilcoxon signed-rank test of {main} against the best row, paired by run"
        smallest = 2.0 ** (1 - comparison.runs)
        text += f" (at least {smallest:.3g} with {comparison.runs} runs)."
        if all(row.p_value is None for row in comparison.rows) and len(comparison.rows) > 1:
            text += " It needs scipy: pip install 'fastmtl-torch[statistics]'."
    return text


def rich_tables(cells: Cells, title: str, width: int) -> list[Table]:
    """Cells as tables for a terminal of some width.

    Nothing is cut: columns that do not fit beside the others follow in a table below.
    """
    # The deviation below the mean and without its 0: as narrow as it gets.
    texts = [[_wrapped(name, 8) for name in cells[0]]]
    for name, *values in cells[1:]:
        texts.append([_wrapped(name, 12), *(value.replace(" ± 0.", "\n±.") for value in values)])
    widths = [max(map(_width, column)) for column in zip(*texts, strict=True)]
    gap = 2 if sum(widths) + 2 * len(widths) - 2 <= width else 1
    groups: list[list[int]] = []
    left = 0
    for index in range(1, len(widths)):
        if not groups or widths[index] + gap > left:
            groups.append([0])
            left = width - widths[0]
        groups[-1].append(index)
        left -= widths[index] + gap
    tables: list[Table] = []
    for group in groups:
        table = Table(
            title="" if tables else title,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, gap - 1, 0, 0),
        )
        for index in group:
            table.add_column(
                Text(texts[0][index]), justify="right" if index else "left", min_width=widths[index]
            )
        for row in texts[1:]:
            table.add_row(*(Text(row[index]) for index in group))
        tables.append(table)
    return tables


def markdown(comparison: Comparison) -> str:
    """The whole comparison as Markdown."""
    parts = [_markdown(results_cells(comparison)), notes(comparison)]
    if accuracy := accuracy_cells(comparison):
        parts.append(_markdown(accuracy))
    parts.append("\n".join(f"- {system.row}: {system.parts}" for system in comparison.plan.chosen))
    return "\n\n".join(parts) + "\n"


def _markdown(cells: Cells) -> str:
    escaped = [[" ".join(cell.replace("|", "\\|").split()) for cell in row] for row in cells]
    lines = ["| " + " | ".join(row) + " |" for row in escaped]
    lines.insert(1, "|---" * len(cells[0]) + "|")
    return "\n".join(lines)


def _show(figure: Figure) -> str:
    mean = shown(figure.mean)
    return mean if figure.deviation is None else f"{mean} ± {figure.deviation:.4f}"


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width, break_long_words=False))


def _width(text: str) -> int:
    return max(map(cell_len, text.split("\n")))
