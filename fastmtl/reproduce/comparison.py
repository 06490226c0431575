"""Results of all runs as a table's numbers: means, deviations, significance, speed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastmtl.reproduce.plan import Plan
from fastmtl.reproduce.runner import Results

# Lower is better.
ERRORS = ("hamming_loss", "one_error", "ranking_loss", "coverage")


@dataclass(frozen=True)
class Figure:
    """Mean and sample deviation over runs; None where there is nothing to count, or one run."""

    mean: float | None
    deviation: float | None

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Figure:
        """The figure of some runs' values.

        Examples:
            >>> Figure.of([1.0, 3.0]), Figure.of([None, 2.0])
            (Figure(mean=2.0, deviation=1.4142135623730951), Figure(mean=2.0, deviation=None))
        """
        there = [value for value in values if value is not None]
        return cls(
            statistics.fmean(there) if there else None,
            statistics.stdev(there) if len(there) > 1 else None,
        )


@dataclass(frozen=True)
class Row:
    """A system's figures, accuracies by label, p-value against the best row, and speed."""

    system: str
    name: str
    figures: dict[str, Figure]
    accuracy: dict[str, Figure]
    p_value: float | None
    seconds: Figure
    epochs: Figure


class Comparison:
    """A paper's table, filled from the results of `run_all`.

    `rows` are in the paper's order; `best` is the system with the best mean of the first of the
    table's figures; `unit` is what the rows' `seconds` are of, "epoch" or "fit". `p_value` is that
    of Wilcoxon's signed-rank test, two-sided, of the row's runs and the best row's, paired by seed
    or fold: None for the best row, with fewer than two runs, or without scipy.

    Args:
        plan: the table.
        results: what `run_all` gave.
    """

    def __init__(self, plan: Plan, results: Results) -> None:
        self.plan = plan
        self.runs = max(map(len, results.values()))
        main = plan.paper.figures[0]
        values = {name: [run["test"][main] for run in runs] for name, runs in results.items()}
        self.best = _best(main, {name: Figure.of(own).mean for name, own in values.items()})
        self.unit = "epoch" if all("train_loss" in run[0] for run in results.values()) else "fit"
        key = "seconds_per_epoch" if self.unit == "epoch" else "seconds"
        self.rows = []
        for system in plan.chosen:
            runs = results[system.name]
            tests = [run["test"] for run in runs]
            p_value = None
            if self.best is not None and system.name != self.best:
                p_value = wilcoxon(values[system.name], values[self.best])
            self.rows.append(
                Row(
                    system.name,
                    system.row,
                    {name: Figure.of([t[name] for t in tests]) for name in plan.paper.figures},
                    {
                        label: Figure.of([t["accuracy"].get(label) for t in tests])
                        for label in tests[0]["accuracy"]
                    },
                    p_value,
                    Figure.of([run[key] for run in runs]),
                    Figure.of([run.get("epochs") for run in runs]),
                )
            )

    def to_dict(self) -> dict[str, Any]:
        """All numbers, as JSON knows them."""
        return {
            **self.plan.fixed(),
            "runs": self.runs,
            "best": self.best,
            "rows": {
                row.system: {
                    "name": row.name,
                    **{name: vars(figure) for name, figure in row.figures.items()},
                    "accuracy": {label: vars(figure) for label, figure in row.accuracy.items()},
                    "p_value": row.p_value,
                    f"seconds_per_{self.unit}": vars(row.seconds),
                    "epochs": vars(row.epochs),
                }
                for row in self.rows
            },
        }


def wilcoxon(values: Sequence[float | None], others: Sequence[float | None]) -> float | None:
    """Two-sided p-value of Wilcoxon's signed-rank test of paired values; 1 if no pair differs.

    None with fewer than two pairs, or without scipy.

    Examples:
        >>> wilcoxon([0.5, 0.6], [0.5, 0.6])
        1.0
    """
    pairs = [(a, b) for a, b in zip(values, others, strict=True) if None not in (a, b)]
    if len(pairs) < 2:
        return None
    if all(a == b for a, b in pairs):
        return 1.0
    try:
        from scipy.stats import wilcoxon as test
    except ImportError:
        return None
    return float(test(*zip(*pairs, strict=True)).pvalue)


def _best(figure: str, means: dict[str, float | None]) -> str | None:
    there = {name: mean for name, mean in means.items() if mean is not None}
    if not there:
        return None
    return (min if figure in ERRORS else max)(there, key=lambda name: there[name])
