from __future__ import annotations

import io

import pytest
from rich.console import Console

from fastmtl.reproduce.tables import rich_tables

CELLS = [
    ["", "micro-F1 ↑", "Hamming loss ↓", "one-error ↓", "p"],
    ["MTMLAN without TIP", "0.3121 ± 0.0115", "0.2147 ± 0.0025", "0.4225 ± 0.0283", "best"],
    ["GradNorm", "0.1806", "0.2285 ± 0.0085", "-", "0.031"],
]


def lines(width):
    console = Console(width=width, file=io.StringIO())
    for table in rich_tables(CELLS, "title", width):
        console.print(table)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [20, 26, 40, 80, 200])
def test_nothing_is_cut_at_any_width(width):
    shown = lines(width)
    text = "\n".join(shown)
    assert max(map(len, shown)) <= width
    assert "…" not in text
    for word in ("MTMLAN", "GradNorm", "Hamming", "0.3121", "±.0115", "±.0283", "best", "0.031"):
        assert word in text


def test_one_table_where_it_fits_and_the_first_column_in_each():
    assert len(rich_tables(CELLS, "title", 80)) == 1
    narrow = rich_tables(CELLS, "title", 26)
    assert len(narrow) > 1
    assert [str(table.title) for table in narrow] == ["title"] + [""] * (len(narrow) - 1)
    assert sum(len(table.columns) - 1 for table in narrow) == 4


def test_labels_are_shown_as_they_are():
    console = Console(width=60, file=io.StringIO())
    for table in rich_tables([["accuracy", "a"], ["[/x]", "0.5"]], "title", 60):
        console.print(table)
    assert "[/x]" in console.file.getvalue()
