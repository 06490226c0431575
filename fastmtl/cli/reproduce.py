"""`fastmtl reproduce`: a paper's table on any data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from fastmtl.cli import options
from fastmtl.cli.errors import (
    STOPPED,
    LastingConsole,
    bad_input,
    exit_with,
    failing,
    one_process,
    warn_of,
)
from fastmtl.reproduce import Plan, run_all, write_report
from fastmtl.reproduce.plan import parse_options
from fastmtl.reproduce.systems import TABLES
from fastmtl.reproduce.tables import accuracy_cells, notes, results_cells, rich_tables
from fastmtl.training import BarReporter, Interrupted, LineReporter, Reporter
from fastmtl.training.device import resolve_device
from fastmtl.training.options import check_count


def reproduce(
    table: Annotated[
        str,
        typer.Argument(
            help="mtmlan, hgfn or mtdnn: the paper.", autocompletion=options.completion(TABLES)
        ),
    ],
    data: options.Data,
    out: Annotated[Path, typer.Option(help="Directory for all runs and the tables.")],
    test: options.Test = None,
    xml: options.Xml = None,
    modalities: Annotated[str | None, typer.Option(help="As train's --modalities.")] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Runs of each row.", show_default=str(Plan.seeds))
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            help="mtdnn: folds, in place of seeds; 1 for the file's split.",
            show_default=str(Plan.folds),
        ),
    ] = None,
    systems: Annotated[
        str | None,
        typer.Option(help="Rows, by name, comma-separated.", show_default="the paper's"),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="NAME=VALUE for every row that has it: epochs=20."),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Processes at a time.")] = 1,
    device: options.Device = "auto",
    threads: options.Threads = None,
) -> None:
    """Train every row of a paper's table and compare; the same command goes on where it stopped.

    Example: fastmtl reproduce mtmlan --data clips.npz --out runs/table
    """
    one_process()
    console = LastingConsole()
    reporter = BarReporter(console) if console.is_terminal else Reporter()
    with bad_input():
        plan = Plan(
            table,
            data=data if data.startswith("synthetic:") else os.path.abspath(data),
            test=None if test is None else os.path.abspath(test),
            xml=None if xml is None else os.path.abspath(xml),
            modalities=modalities,
            seeds=Plan.seeds if seeds is None else seeds,
            folds=Plan.folds if folds is None else folds,
            systems=systems.split(",") if systems else (),
            options=parse_options(option or []),
            device=device,
            threads=threads,
        )
        if seeds is not None and plan.cross_validates:
            raise ValueError(f"seeds: expected only with --folds 1, got it with {plan.folds} folds")
        if folds is not None and table != "mtdnn":
            raise ValueError(f"folds: expected only with mtdnn, got it with {table}")
        resolve_device(device)
        check_count("jobs", jobs)
        plan.check_directory(out)
        loaded = plan.load()
    warnings = list(loaded.warnings)
    if table == "hgfn" and len(loaded.modalities) == 1:
        warnings.append("the data has one modality, nothing to fuse (--modalities cuts columns)")
    warn_of(warnings)
    try:
        with failing():
            results = run_all(
                plan, out, jobs=jobs, say=LineReporter(console).message, reporter=reporter
            )
            comparison = write_report(plan, results, out)
    except (Interrupted, KeyboardInterrupt):
        exit_with("stopped; the same command goes on from here", STOPPED)
    tables = rich_tables(results_cells(comparison), plan.paper.name, console.width)
    if cells := accuracy_cells(comparison):
        tables += rich_tables(cells, "accuracy by concept", console.width)
    for each in tables:
        console.print("", each)
    console.print()
    console.print(notes(comparison), f"Files in {out}.", highlight=False, markup=False)
