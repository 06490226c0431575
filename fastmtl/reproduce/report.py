"""What a reproduction leaves in its directory beside the runs."""

from __future__ import annotations

from pathlib import Path

from fastmtl.reproduce.comparison import Comparison
from fastmtl.reproduce.figures import plot_task_weights, plot_training_losses
from fastmtl.reproduce.plan import Plan
from fastmtl.reproduce.runner import Results
from fastmtl.reproduce.tables import markdown
from fastmtl.training.checkpoint import remove_temporaries, write_atomic, write_json

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
    """
    comparison = Comparison(plan, results)
    remove_temporaries(out, (TABLE, NUMBERS, LOSSES, WEIGHTS))
    write_atomic(out / TABLE, markdown(comparison))
    write_json(out / NUMBERS, comparison.to_dict())
    if comparison.unit == "epoch":
        write_atomic(out / LOSSES, plot_training_losses(plan, results))
        weights = plot_task_weights(plan, results, list(comparison.rows[0].accuracy))
        if weights is not None:
            write_atomic(out / WEIGHTS, weights)
    return comparison
