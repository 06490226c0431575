"""A comparison as text: for the terminal and as Markdown."""

from __future__ import annotations

from rich import box
from rich.table import Table

from fastmtl.reproduce.comparison import ERRORS, Comparison, Figure
from fastmtl.systems import TABLES

_NAMES = {
    "micro_f1": "micro-F1",
    "hamming_loss": "Hamming loss",
    "map": "mAP",
    "one_error": "one-error",
    "ranking_loss": "ranking loss",
    "coverage": "coverage",
    "lrap": "LRAP",
}
_MAX_LABELS = 24
Cells = list[list[str]]


def systems_table() -> Table:
    """Every system of the papers, by table."""
    table = Table()
    for column in ("table", "system", "row", "made of"):
        table.add_column(column, overflow="fold")
    for paper in TABLES.values():
        table.add_section()
        for system in paper.systems:
            shown = "" if system.name in paper.default else " (on request)"
            table.add_row(paper.name, system.name + shown, system.row, system.parts)
    return table


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
                "best" if row.system == comparison.best else _number(row.p_value, 3),
                _number(row.epochs.mean, 1),
                _number(row.seconds.mean, 2),
            ]
        )
    return cells


def accuracy_cells(comparison: Comparison) -> Cells:
    """Accuracy of each concept (rows) by system (columns); empty beyond 24 concepts."""
    labels = list(comparison.rows[0].accuracy)
    if len(labels) > _MAX_LABELS:
        return []
    cells = [["accuracy", *(row.name for row in comparison.rows)]]
    cells += [[label, *(_show(r.accuracy[label]) for r in comparison.rows)] for label in labels]
    return cells


def notes(comparison: Comparison) -> str:
    """What the numbers are of."""
    plan = comparison.plan
    kind = "folds" if plan.cross_validates else "seeds"
    text = f"{plan.paper.paper}. Data: {plan.data}. Mean ± deviation over {comparison.runs} {kind}."
    if comparison.runs > 1:
        main = _NAMES[plan.paper.figures[0]]
        text += f" p: Wilcoxon signed-rank test of {main} against the best row, paired by run"
        smallest = 2.0 ** (1 - comparison.runs)
        text += f" (at least {smallest:.3g} with {comparison.runs} runs)."
        if all(row.p_value is None for row in comparison.rows) and len(comparison.rows) > 1:
            text += " It needs scipy: pip install 'fastmtl[statistics]'."
    return text


def rich_table(cells: Cells, title: str) -> Table:
    """Cells as a table for the terminal."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, name in enumerate(cells[0]):
        table.add_column(name, justify="right" if index else "left")
    for row in cells[1:]:
        # The deviation below the mean and without its 0: as narrow as it gets.
        table.add_row(*(cell.replace(" ± 0.", "\n±.") for cell in row))
    return table


def markdown(comparison: Comparison) -> str:
    """The whole comparison as Markdown."""
    parts = [_markdown(results_cells(comparison)), notes(comparison)]
    if accuracy := accuracy_cells(comparison):
        parts.append(_markdown(accuracy))
    parts.append("\n".join(f"- {system.row}: {system.parts}" for system in comparison.plan.chosen))
    return "\n\n".join(parts) + "\n"


def _markdown(cells: Cells) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    lines.insert(1, "|---" * len(cells[0]) + "|")
    return "\n".join(lines)


def _show(figure: Figure) -> str:
    mean = _number(figure.mean, 4)
    return mean if figure.deviation is None else f"{mean} ± {figure.deviation:.4f}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
