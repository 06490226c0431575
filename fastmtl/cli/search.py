"""`fastmtl search`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from fastmtl._text import csv_text
from fastmtl.cli import options
from fastmtl.cli.errors import TellingConsole, bad_input, failing, one_process, show
from fastmtl.cli.opening import STDOUT, check_writable, open_run
from fastmtl.training.checkpoint import write_atomic
from fastmtl.training.inputs import split_rows, with_classes_of
from fastmtl.training.report import shown
from fastmtl.training.retrieval import CUTS, Ranking, column_labels, parse_terms, ranked


def search(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a run.")],
    data: options.Data,
    concept: Annotated[
        list[str],
        typer.Option(
            help="A label or TASK/CLASS to look for, or 'not ...'; of several the product."
        ),
    ],
    top: Annotated[int, typer.Option(min=1, help="How many samples to show.")] = 20,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A file to write: JSON if it ends in .json, else CSV; - prints the CSV.",
            show_default="a table",
        ),
    ] = None,
    xml: options.Xml = None,
    split: Annotated[str, typer.Option(help="train, val, test or all samples.")] = "all",
    overwrite: Annotated[bool, options.flag("--overwrite", "Replace the file.")] = False,
    memory: options.Memory = "auto",
    device: options.Device = "auto",
    threads: options.Threads = None,
) -> None:
    """Rank the samples of a data set by the probability of concepts.

    Example: fastmtl search runs/first --data new.npz --concept flood --concept "not fire"
    """
    one_process()
    with bad_input():
        if out is not None:
            check_writable(out, overwrite=overwrite)
        predictor, loaded = open_run(
            directory, data, None, xml, memory, device, threads, split, labels=False
        )
        tasks = predictor.tasks
        names = tasks.columns()
        terms = parse_terms(concept, names)
        labelled = loaded.label_names == predictor.label_names
        labelled = labelled and set(loaded.class_names) == set(tasks.class_names)
        y = with_classes_of(loaded, predictor.description).y if labelled else None
    rows = split_rows(loaded, split)
    with failing():
        probabilities = predictor.probabilities(loaded, split)
    labels = None if y is None else column_labels(tasks, y[rows])
    found = ranked(terms, probabilities, labels)
    lines = _lines(
        found,
        rows[found.rows[:top]].tolist(),
        loaded.names_of(rows[found.rows[:top]]),
        {names[column]: probabilities[found.rows[:top], column].tolist() for column, _ in terms},
    )
    with failing():
        _give(lines, found, " and ".join(concept), out, top)


def _lines(
    found: Ranking,
    indices: list[int],  # of the first samples, in the data
    called: list[str] | None,
    probabilities: Mapping[str, list[float]],  # of each term
) -> list[dict[str, Any]]:
    """What is shown of each of the first samples."""
    lines = []
    for rank, index in enumerate(indices):
        line: dict[str, Any] = {"rank": rank + 1, "index": index}
        if called is not None:
            line["name"] = called[rank]
        line["score"] = _rounded(found.scores[rank].item())
        line |= {f"probability/{name}": _rounded(p[rank]) for name, p in probabilities.items()}
        if found.right is not None:
            label = found.right[rank].item()
            line["right"] = None if math.isnan(label) else int(label)
        lines.append(line)
    return lines


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _give(
    lines: list[dict[str, Any]], found: Ranking, title: str, out: Path | None, top: int
) -> None:
    cuts = [k for k in CUTS if k < top] + [min(top, len(found.rows))]
    told = _told(found, cuts)
    if out is None:
        console = TellingConsole()
        console.print(_table(lines, title))
        console.print(told, highlight=False)
        return
    if out.suffix.lower() == ".json":
        precision = {str(k): value for k, value in found.precision_at(cuts).items()}
        figures = {"precision_at": precision, "average_precision": found.average_precision()}
        text = json.dumps({"query": title, **figures, "samples": lines}, indent=1) + "\n"
    else:
        text = csv_text([list(lines[0]), *(list(line.values()) for line in lines)] if lines else [])
    if out == STDOUT:
        show(text, nl=False)
        return
    write_atomic(out, text)
    show(f"{len(lines):,} of {len(found.rows):,} samples in {out}")
    show(told)


def _table(lines: Sequence[dict[str, Any]], title: str) -> Table:
    table = Table(title=escape(title), title_justify="left")
    for name in lines[0] if lines else ():
        table.add_column(escape(name), justify="left" if name == "name" else "right")
    for line in lines:
        table.add_row(*(_cell(value) for value in line.values()))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return shown(value)
    return "-" if value is None else escape(str(value))


def _told(found: Ranking, cuts: Sequence[int]) -> str:
    known = 0 if found.right is None else int((~found.right.isnan()).sum())
    if not known:
        return "no labels of the run's names to measure precision by"
    right = 0 if found.right is None else int((found.right == 1).sum())
    precision = found.precision_at(cuts).items()
    at = ", ".join(f"{k}: {shown(value, 3)}" for k, value in precision)
    average = shown(found.average_precision(), 3)
    return f"precision at {at}; average precision {average}; {right:,} right of {known:,}"
