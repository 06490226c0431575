"""Writes the tables of docs/methods.md, and the picture in it, from a journal."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.journal import Journal
from benchmarks.methods import picture, scores
from benchmarks.methods.cost import LIBMTL, OURS, TORCHJD
from benchmarks.methods.problems import PROBLEMS
from fastmtl.training.recipes import BALANCERS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "methods.md"
PICTURE = ROOT / "docs" / "images" / "methods.png"
BEGIN = "<!-- {part}: written by `python -m benchmarks.methods OUT --report` -->"
END = "<!-- end -->"
NOTHING = "–"
Costs = dict[tuple[str, str], dict[str, dict[str, Any]]]  # by way and method, by problem


def write(journal: Journal, page: Path = PAGE, image: Path = PICTURE) -> None:
    """Put into the page what the journal has; a part of which it has nothing stays as it is."""
    lines = list(journal.lines())
    learned, costs = scores.learned(lines), costs_of(lines)
    text = page.read_text()
    if learned:
        text = put(text, "quality", quality_table(learned))
    if costs:
        table = cost_table(costs)
        ranks = scores.means_over_problems(map(scores.mean_ranks, learned.values()))
        if ranks:
            picture.draw(ranks, ratios(costs), image)
            table += [
                "",
                f"![Mean rank of each method over the time of a step](images/{image.name})",
            ]
        text = put(text, "cost", table)
    page.write_text(text)


def put(text: str, part: str, table: Sequence[str]) -> str:
    """The text with a table between the marks of a part."""
    before, found, rest = text.partition(BEGIN.format(part=part))
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"the page has no place for {part}")
    return "\n".join([before + found, "", *table, "", ended + after])


def quality_table(learned: scores.Lines) -> list[str]:
    """Mean ranks over the problems, and delta-m with its deviation over the seeds; best first."""
    problems = [name for name in PROBLEMS if name in learned]
    ranks = {name: scores.mean_ranks(learned[name]) for name in problems}
    overall = scores.means_over_problems(ranks.values())
    gains = {name: scores.gains(learned[name]) for name in problems}
    heads = []
    for name in problems:
        seeds = len(scores.common_seeds(learned[name]))
        heads.append(f"{name}, Δm, {seeds} seed{'s' if seeds != 1 else ''}")
    rows = [
        f"| balancer | mean rank | {' | '.join(heads)} |",
        "| --- " * (2 + len(problems)) + "|",
    ]
    for method in sorted(BALANCERS, key=lambda name: overall.get(name, len(BALANCERS))):
        cells = [f"`{method}`", _one(overall.get(method))]
        cells += [_spread(gains[name].get(method, [])) for name in problems]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _one(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1f}"


def _spread(values: list[float]) -> str:
    if not values:
        return NOTHING
    text = f"{statistics.mean(values):+.1f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.1f}"


def costs_of(lines: Iterable[dict[str, Any]]) -> Costs:
    """Those of the lines that have any; of several of one thing, the last."""
    found: Costs = {}
    for line in lines:
        if line["kind"] == "cost":
            found.setdefault((line["way"], line["method"]), {})[line["problem"]] = line
    return found


def ratios(costs: Costs) -> dict[tuple[str, str], float]:
    """A step's time over that of a plain step, the geometric mean over the problems."""
    every = {problem for each in costs.values() for problem in each}
    return {
        key: statistics.geometric_mean(_ratio(line) for line in by_problem.values())
        for key, by_problem in costs.items()
        if set(by_problem) == every
    }


def _ratio(line: dict[str, Any]) -> float:
    return float(line["seconds"] / line["plain_seconds"])


def cost_table(costs: Costs) -> list[str]:
    """Time over that of a plain step and memory beyond its, by problem, of each way."""
    problems = [name for name in PROBLEMS if any(name in each for each in costs.values())]
    rows = [
        f"| balancer | {' | '.join(problems)} | "
        f"{' | '.join(f'{name}, TorchJD' for name in problems)} |",
        "| --- " * (1 + 2 * len(problems)) + "|",
    ]
    keys = [(f"`{method}`", (OURS, method), (TORCHJD, method)) for method in BALANCERS]
    keys.append(("one backward pass a task, no method", (LIBMTL, ""), ("", "")))
    for name, ours, theirs in keys:
        cells = [
            _cost(costs.get(key, {}).get(problem)) for key in (ours, theirs) for problem in problems
        ]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def _cost(line: dict[str, Any] | None) -> str:
    if line is None:
        return NOTHING
    ratio = _ratio(line)
    text = f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"
    if line["bytes"] is None or line["plain_bytes"] is None:
        return text
    return f"{text}, {(line['bytes'] - line['plain_bytes']) / 1e6:+.0f} MB"
