from __future__ import annotations

import pytest

from fastmtl.training import EpochRecord, plot_figures, plot_losses, plot_runs, plot_weights
from fastmtl.training.plot_style import as_label, from_zero, look
from fastmtl.training.run_spread import band


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


@pytest.mark.parametrize(("tasks", "epochs"), [(1, 1), (1, 4), (2, 4), (4, 1), (13, 4), (40, 1)])
def test_every_number_of_tasks_and_epochs_is_drawn(tasks, epochs):
    names = [f"task {i} of a_long_name with $ and \\ in it" for i in range(tasks)]
    for image in (
        plot_losses(records(tasks, epochs), names, best_epoch=1),
        plot_weights(records(tasks, epochs), names, title="a title"),
        plot_figures(records(tasks, epochs), best_epoch=epochs, title="a $ title"),
    ):
        assert image.startswith(b"\x89PNG")
        assert len(image) > 5000


def test_no_epoch_is_an_error():
    with pytest.raises(ValueError, match="records: expected at least one epoch"):
        plot_losses([], ["a"])
    with pytest.raises(ValueError, match="records: expected at least one epoch"):
        plot_weights([], ["a"])


def test_a_task_looks_the_same_in_every_run():
    assert look(3) == look(3)
    assert len({tuple(look(place).items()) for place in range(32)}) == 32


def test_one_epoch_is_not_cut_off():
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    from_zero(axes, [None, 0.5, float("nan")])
    low, high = axes.get_ylim()
    assert (low, high) == (0, pytest.approx(0.54))
    from_zero(axes, [None])
    assert axes.get_ylim() == (0, 1)


def test_a_name_that_ends_in_mathematics():
    assert as_label("$" * 30).count(r"\$") == 23


@pytest.mark.parametrize("epochs", [1, 4])
def test_runs_are_drawn_in_their_range(epochs):
    group = [records(2, epochs), records(2, epochs)[: max(1, epochs - 2)]]
    for figure in ("micro_f1", "total_val_loss"):
        drawn = plot_runs({"dmtl": group, "equal": group[:1]}, figure, title="hgfn on sea")
        assert drawn.startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="figure: expected one of map"):
        plot_runs({"dmtl": group}, "loss")
    for wrong in ({}, {"dmtl": []}, {"dmtl": [[]]}):
        with pytest.raises(ValueError, match="runs: expected at least one run with epochs"):
            plot_runs(wrong)


def test_the_mean_of_runs_is_that_of_those_that_go_on():
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    band(axes, [[1.0, 2.0, 3.0], [3.0, None]], color="k")
    (line,) = axes.lines
    assert list(line.get_ydata()) == [2.0, 2.0, 3.0]
