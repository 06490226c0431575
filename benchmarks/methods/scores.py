"""Mean ranks, and gains over networks of one task each, from the lines of a journal."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.methods.quality import ALONE

# By problem, method and seed.
Lines = dict[str, dict[str, dict[int, list[dict[str, Any]]]]]


def learned(lines: Iterable[dict[str, Any]]) -> Lines:
    """The scores of the lines that have any; of several of one run, the last."""
    found: Lines = {}
    for line in lines:
        if line["kind"] == "quality":
            methods = found.setdefault(line["problem"], {})
            methods.setdefault(line["method"], {})[line["seed"]] = line["scores"]
    return found


def common_seeds(methods: Mapping[str, Mapping[int, object]]) -> list[int]:
    """Those that all methods have, whatever the networks of one task each have."""
    runs = [set(runs) for method, runs in methods.items() if method != ALONE]
    return sorted(set.intersection(*runs)) if runs else []


def mean_ranks(methods: Mapping[str, Mapping[int, list[dict[str, Any]]]]) -> dict[str, float]:
    """The mean over the tasks of a problem of the rank of each method, 1 the best, among all but
    the networks of one task each. Each score is ranked by its mean over the seeds that all methods
    have; equal ones share their ranks, and the scores of a task count as one."""
    ranked = [method for method in methods if method != ALONE]
    seeds = common_seeds(methods)
    by_score: dict[tuple[int, int], dict[str, float]] = {}
    for method in ranked:
        for index, scores in enumerate(zip(*(methods[method][s] for s in seeds), strict=True)):
            sign = 1 if scores[0]["higher_is_better"] else -1
            mean = sign * statistics.mean(score["value"] for score in scores)
            by_score.setdefault((scores[0]["task"], index), {})[method] = mean
    by_task: dict[int, list[dict[str, float]]] = {}
    for (task, _), values in by_score.items():
        by_task.setdefault(task, []).append(_ranks(values))
    return {
        method: statistics.mean(
            statistics.mean(ranks[method] for ranks in of_task) for of_task in by_task.values()
        )
        for method in ranked
        if by_task
    }


def _ranks(values: Mapping[str, float]) -> dict[str, float]:
    """Of the largest 1; equal ones share theirs."""
    return {
        name: 1
        + sum(other > value for other in values.values())
        + (sum(other == value for other in values.values()) - 1) / 2
        for name, value in values.items()
    }


def gain(scores: list[dict[str, Any]], alone: list[dict[str, Any]]) -> float:
    """Delta-m in percent (Maninis et al. 2019, equation 4): the mean over the tasks of the relative
    gain of their scores over those of a network of their own."""
    by_task: dict[int, list[float]] = {}
    for score, base in zip(scores, alone, strict=True):
        sign = 1 if score["higher_is_better"] else -1
        relative = sign * (score["value"] - base["value"]) / base["value"]
        by_task.setdefault(score["task"], []).append(relative)
    return 100 * statistics.mean(statistics.mean(values) for values in by_task.values())


def gains(methods: Mapping[str, Mapping[int, list[dict[str, Any]]]]) -> dict[str, list[float]]:
    """Delta-m of each method over the mean of the networks of one task each, for each seed that all
    methods have."""
    if ALONE not in methods:
        return {}
    alone = [
        {**scores[0], "value": statistics.mean(score["value"] for score in scores)}
        for scores in zip(*methods[ALONE].values(), strict=True)
    ]
    return {
        method: [gain(runs[seed], alone) for seed in common_seeds(methods)]
        for method, runs in methods.items()
        if method != ALONE
    }


def means_over_problems(by_problem: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each method that all problems have."""
    problems = list(by_problem)
    if not problems:
        return {}
    everywhere = set.intersection(*(set(each) for each in problems))
    return {
        method: statistics.mean(each[method] for each in problems)
        for method in problems[0]
        if method in everywhere
    }
