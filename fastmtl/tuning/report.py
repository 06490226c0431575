"""What a search leaves to be read and looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from fastmtl._text import csv_text
from fastmtl.training.checkpoint import remove_temporaries, write_atomic
from fastmtl.training.options_file import options_toml
from fastmtl.tuning.plots import plot_trials
from fastmtl.tuning.search import Search
from fastmtl.tuning.trial import Outcome, shown_value

BEST = "best.toml"
TABLE = "trials.csv"
PLOT = "tuning.png"
MAX_ROWS = 10


def write_results(search: Search, outcomes: Sequence[Outcome], out: Path) -> None:
    """Write all trials as CSV, a plot of them, and the options of the best for `train --config`.

    Args:
        search: what was tried.
        outcomes: its trials, the best first.
        out: the directory of the search.
    """
    remove_temporaries(out, [BEST, TABLE, PLOT])
    write_atomic(out / TABLE, trials_csv(search, outcomes))
    write_atomic(out / PLOT, plot_trials(search, outcomes))
    write_atomic(out / BEST, options_toml(outcomes[0].config))


def trials_csv(search: Search, outcomes: Sequence[Outcome]) -> str:
    """The trials in the order in which they were drawn; an option without effect is empty."""
    monitor = "val_" + search.base.monitor
    rows: list[list[object]] = [
        ["trial", "state", monitor, "epochs", "seconds", *search.space, "error"]
    ]
    for each in sorted(outcomes, key=lambda outcome: outcome.number):
        figure = "" if each.score is None else search.shown(each.score)
        values = [each.drawn.get(name, "") for name in search.space]
        rows.append(
            [each.number, each.state, figure, each.epochs, each.seconds, *values, each.error]
        )
    return csv_text(rows)


def trials_table(search: Search, outcomes: Sequence[Outcome]) -> Table:
    """The best trials, one a row; those that were pruned stand behind all that finished."""
    title = f"{min(MAX_ROWS, len(outcomes))} of {len(outcomes)} trials, validation split"
    table = Table(title=title, title_justify="left")
    table.add_column("trial", justify="right")
    table.add_column(search.monitor, justify="right")
    table.add_column("epochs", justify="right")
    for name in search.space:
        table.add_column(name, justify="right")
    for each in outcomes[:MAX_ROWS]:
        figure = "-" if each.score is None else f"{search.shown(each.score):.4f}"
        ended = "" if each.state == "finished" else f" {each.state}"
        values = [shown_value(each.drawn.get(name, "-")) for name in search.space]
        table.add_row(str(each.number), figure, f"{each.epochs}{ended}", *values)
    return table
