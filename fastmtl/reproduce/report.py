"""What a reproduction leaves in its directory beside the runs."""

from __future__ import annotations

from pathlib import Path

from fastmtl.reproduce.comparison import Comparison
from fastmtl.reproduce.figures import plot_task_weights, plot_training_losses
from fastmtl.reproduce.plan import Plan
from fastmtl.reproduce.runner import Results
from fastmtl.reproduce.tables import markdown
from fastmtl.training.checkpoint import remove_temporaries, write_atomic, write_json
from fastmtl.training.lock import locked

TABLE, NUMBERS = "table.md", "table.json"
LOSSES, WEIGHTS = "losses.png", "weights.png"


def write_report(plan: Plan, results: Results, out: Path) -> Comparison:
    """Write table.md and table.json, and for networks losses.png and weights.png.

    Args:
        plan: the table.
        results: what `run_all` gave.
        out: the directory of the reproduction.

    Raises:
        OSError: if a file cannot be written.
        RunError: if another process works in the directory.
    """
    comparison = Comparison(plan, results)
    files: dict[str, bytes | str] = {TABLE: markdown(comparison)}
    if comparison.unit == "epoch":
        files[LOSSES] = plot_training_losses(plan, results)
        weights = plot_task_weights(plan, results, list(comparison.rows[0].accuracy))
        if weights is not None:
            files[WEIGHTS] = weights
    with locked(out):
        remove_temporaries(out, (TABLE, NUMBERS, LOSSES, WEIGHTS))
        for name, content in files.items():
            write_atomic(out / name, content)
        write_json(out / NUMBERS, comparison.to_dict())
    return comparison
