"""Compare all methods of `fastmtl balancers`.

    python -m benchmarks.methods OUT --quality [--data DATA] [--seeds 3] [--only METHOD ...]
    python -m benchmarks.methods OUT --cost [--data DATA]
    python -m benchmarks.methods OUT --report

DATA holds natural_scene.npz and yt8m_top100.npz; what is not there is left out. Each result is a
line in OUT/results.jsonl as soon as it is there, and what has a line is not done again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.gpu.journal import Journal
from benchmarks.methods import cost, quality, report
from benchmarks.methods.problems import PROBLEMS, load


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--quality", action="store_true", help="train every method")
    parser.add_argument("--cost", action="store_true", help="time a step of every method")
    parser.add_argument("--report", action="store_true", help="write docs/methods.md")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=quality.METHODS, default=quality.METHODS)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=PROBLEMS)
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    journal = Journal(given.out / "results.jsonl")
    torch.set_num_threads(1)
    if given.quality:
        learn(journal, given)
    if given.cost:
        time(journal, given)
    if given.report:
        report.write(journal)


def learn(journal: Journal, given: argparse.Namespace) -> None:
    """Seed by seed, so that a table of all methods is there early."""
    done = {
        (line["problem"], line["method"], line["seed"])
        for line in journal.lines()
        if line["kind"] == "quality"
    }
    for seed in range(given.seeds):
        for name in given.problems:
            for method in given.only:
                problem = load(name, given.data)
                if problem is None or (name, method, seed) in done:
                    continue
                result = quality.measure(problem, method, seed)
                journal.write("quality", problem=name, method=method, seed=seed, **result)
                print(f"{name} {method} seed {seed}: {result['seconds']:.1f} s", flush=True)


def time(journal: Journal, given: argparse.Namespace) -> None:
    """Nothing else should run on the machine."""
    done = {
        (line["problem"], line["way"], line["method"])
        for line in journal.lines()
        if line["kind"] == "cost"
    }
    for name in cost.WIDTHS:
        problem = load(name, given.data) if name in given.problems else None
        if problem is None:
            continue
        for way, method, make in cost.steps(problem):
            if (name, way, method) in done:
                continue
            result = cost.measure(problem, make)
            if result is not None:
                journal.write("cost", problem=name, way=way, method=method, **result)
                ratio = result["seconds"] / result["plain_seconds"]
                print(f"{name} {way} {method}: {ratio:.2f} of a plain step", flush=True)


if __name__ == "__main__":
    main()
