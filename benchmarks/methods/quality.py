"""What each method learns, with the same budget for all, beside one network for each task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from time import perf_counter
from typing import Any

import torch

from benchmarks.methods.problem import Problem, Score, predict
from fastmtl.balancing import (
    Balancer,
    Equal,
    GradNorm,
    GramianBalancer,
    TaskDynamicBalancing,
)
from fastmtl.training.recipes import BALANCERS

ALONE = "single-task"
METHODS = (ALONE, *BALANCERS)


def build(method: str, problem: Problem, network: torch.nn.Module) -> Balancer:
    """The balancer of that name on the command line, with the defaults of its class."""
    kind: Any = BALANCERS[method].kind
    if issubclass(kind, TaskDynamicBalancing):
        balancer = kind(network, positives=problem.positives(), samples=problem.samples)
    elif issubclass(kind, (GramianBalancer, GradNorm)):
        balancer = kind(network)
    else:
        balancer = kind(problem.num_tasks)
    assert isinstance(balancer, Balancer)
    return balancer


def measure(problem: Problem, method: str, seed: int) -> dict[str, Any]:
    """The scores on the test samples after training, and the seconds of that."""
    start = perf_counter()
    scores = _alone(problem, seed) if method == ALONE else train(problem, method, seed)
    return {"scores": [asdict(score) for score in scores], "seconds": perf_counter() - start}


def _alone(problem: Problem, seed: int) -> list[Score]:
    """Of a network for each task, trained alike."""
    found: list[Score] = []
    for task in range(problem.num_tasks):
        scores = train(problem.alone(task), None, seed)
        found += [Score(task, each.value, each.higher_is_better) for each in scores]
    return found


def train(problem: Problem, method: str | None, seed: int) -> list[Score]:
    """Of a network after the last step: initial weights and batches are those of the seed, whatever
    the method draws."""
    torch.manual_seed(seed)
    network = problem.network()
    balancer = Equal(problem.num_tasks) if method is None else build(method, problem, network)
    parameters = [*network.parameters(), *balancer.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=problem.lr)
    steps = problem.epochs * -(-problem.samples // problem.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for batches in _epochs(problem, seed):
        for rows in batches:
            x, *targets = (part[rows] for part in problem.train)
            balancer.backward(problem.losses(network(x), targets))
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        balancer.end_cycle()
    x, *targets = problem.test
    return problem.scores(predict(network, x), targets)


def _epochs(problem: Problem, seed: int) -> Iterator[tuple[torch.Tensor, ...]]:
    draw = torch.Generator().manual_seed(seed)
    for _ in range(problem.epochs):
        yield torch.randperm(problem.samples, generator=draw).split(problem.batch_size)
