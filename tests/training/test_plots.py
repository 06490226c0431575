from __future__ import annotations

import subprocess
import sys

import pytest

from fastmtl.training import EpochRecord, plot_losses, plot_weights


def records(tasks, epochs):
    return [
        EpochRecord(
            epoch,
            0.1,
            [0.5 / (epoch + task) for task in range(tasks)],
            [None if task == 1 else 0.6 / (epoch + task) for task in range(tasks)],
            [1 + 0.01 * task * epoch for task in range(tasks)],
            0.5,
            0.2,
            None,
        )
        for epoch in range(1, epochs + 1)
    ]


@pytest.mark.parametrize("tasks", [1, 2, 4, 13, 40])
@pytest.mark.parametrize("epochs", [1, 4])
def test_every_number_of_tasks_and_epochs_is_drawn(tasks, epochs):
    names = [f"task {i} of a_long_name with $ and \\ in it" for i in range(tasks)]
    for image in (
        plot_losses(records(tasks, epochs), names, best_epoch=1),
        plot_weights(records(tasks, epochs), names),
    ):
        assert image.startswith(b"\x89PNG")
        assert len(image) > 5000


def test_no_epoch_is_an_error():
    with pytest.raises(ValueError, match="records: expected at least one epoch"):
        plot_losses([], ["a"])
    with pytest.raises(ValueError, match="records: expected at least one epoch"):
        plot_weights([], ["a"])


def test_matplotlib_is_imported_when_something_is_drawn():
    code = "import sys, fastmtl.training; print([m in sys.modules for m in sys.argv[1:]])"
    run = [sys.executable, "-c", code, "matplotlib", "torchmetrics"]
    shown = subprocess.run(run, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[False, False]"
