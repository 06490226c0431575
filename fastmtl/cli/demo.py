"""`fastmtl demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from fastmtl.cli import options
from fastmtl.cli.errors import STOPPED, LastingConsole, bad_input, exit_with, failing, one_process


def demo(
    out: Annotated[Path, typer.Option(help="Directory for the runs.")] = Path("demo"),
    threads: options.Threads = None,
) -> None:
    """Time a network with and without fastmtl, train two models beside a baseline, and report.

    Example: fastmtl demo --out demo
    """
    import torch

    from fastmtl import data as sets
    from fastmtl import demo as shown
    from fastmtl.training import BarReporter, Interrupted, Reporter

    one_process()
    console = LastingConsole()
    with bad_input():
        if threads is not None:
            torch.set_num_threads(threads)
    console.print(
        f"An epoch of MTMLAN, the same network twice, on {shown.TIMED}\n", highlight=False
    )
    console.print(_times(shown.timings()), "")
    data = sets.load(shown.TRAINED)
    console.print(f"HGFN on {shown.TRAINED}\n", highlight=False)
    results = {"ridge regression": shown.baseline(data)}
    try:
        with failing():
            for name in shown.BALANCERS:
                reporter = BarReporter(console) if console.is_terminal else Reporter()
                results[f"hgfn, {name}"] = shown.trained(data, name, out, reporter)
    except Interrupted:
        exit_with("stopped", STOPPED)
    console.print(_compared(results), "")
    console.print(f"Runs, with plots of losses and task weights: {out}/", highlight=False)
    page = shown.write_report(data, shown.BALANCERS[-1], out)
    console.print(f"What the last one learnt, in a browser: {page}", highlight=False)


def _times(timings: list[Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for column in ("", "torch.nn", "fastmtl", "faster", "losses differ by"):
        table.add_column(column, justify="right" if column else "left")
    for each in timings:
        ratio = f"{each.plain / each.fused:.1f}x"
        times = (f"{each.plain:.2f} s", f"{each.fused:.2f} s")
        table.add_row(each.name, *times, ratio, f"{each.difference:.0e}")
    return table


def _compared(results: dict[str, dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("AP, test")
    table.add_column("positives", justify="right")
    for name in results:
        table.add_column(name, justify="right")
    figures = list(results.values())
    for label, positives in figures[0]["positives"].items():
        shares = (f"{each['average_precision'][label]:.2f}" for each in figures)
        table.add_row(label, str(positives), *shares)
    table.add_section()
    table.add_row("mAP", "", *(f"{each['map']:.3f}" for each in figures))
    table.add_row("micro-F1", "", *(f"{each['micro_f1']:.3f}" for each in figures))
    return table
