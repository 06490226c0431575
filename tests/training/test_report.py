from __future__ import annotations

import io

import pytest
from rich.console import Console

from fastmtl.training import BarReporter, EpochRecord, LineReporter, Reporter
from fastmtl.training.report import BY_LABEL, FIGURES, results_table

RECORD = EpochRecord(1, 0.5, [0.6], [0.5], [1.0], 0.7, 0.2, None)


def figures(labels, value=0.5):
    by_label = {
        key: {f"label {i}": (i + 1) * value / labels for i in range(labels)}
        for key in ("average_precision", "f1", "accuracy")
    }
    positives = {f"label {i}": 1000 + i for i in range(labels)}
    overall = {"micro_f1": 0.25, "hamming_loss": 0.5, "map": None}
    return {**overall, **by_label, "positives": positives}


def shown(table):
    console = Console(file=io.StringIO(), width=80)
    console.print(table)
    return console.file.getvalue()


def test_the_tables_have_a_column_for_each_split_and_a_row_for_each_label():
    metrics = {"val": figures(2, 0.1), "test": figures(2), "training": {}}
    text = shown(results_table(metrics, "run"))
    assert "val" in text
    assert "test" in text
    assert "training" not in text
    assert text.count(" - │") == 2
    row = next(line for line in text.splitlines() if "label 1" in line)
    assert row.replace("│", " ").split() == ["label", "1", "1,001", *["0.5000"] * 3]


def test_of_many_labels_the_worst_are_shown():
    many = figures(100)
    many["average_precision"]["label 0"] = None
    text = shown(results_table({"val": many}, "run"))
    assert "the lowest AP of 100" in text
    assert text.count("label ") == 24
    assert "label 1 " in text
    assert "label 0 " not in text


@pytest.mark.parametrize("kind", [Reporter, LineReporter, BarReporter])
def test_reporters_follow_a_run(kind):
    console = Console(file=io.StringIO(), force_terminal=kind is BarReporter, width=120)
    reporter = kind() if kind is Reporter else kind(console)
    for epoch in (1, 2):
        reporter.epoch_started(epoch, 2, batches=3)
        for _ in range(3):
            reporter.step(lambda: 0.5)
        reporter.epoch_ended(RECORD, best_epoch=1)
    reporter.message("done [not markup]")
    reporter.close()
    text = console.file.getvalue()
    if kind is not Reporter:
        assert "val loss 0.5000" in text
        assert "done [not markup]" in text


def test_lines_do_not_read_the_loss():
    def loss():
        raise AssertionError("reading the loss waits for the device")

    LineReporter(Console(file=io.StringIO())).step(loss)


def test_labels_are_shown_as_they_are():
    names = ["[/x]", "[red]", "a[b]"]
    figures = {**dict.fromkeys(FIGURES), **{key: dict.fromkeys(names, 0) for key in BY_LABEL}}
    console = Console(width=80, file=io.StringIO())
    console.print(results_table({"val": figures}, "[/title]"))
    shown = console.file.getvalue()
    for text in (*names, "[/title]"):
        assert text in shown
