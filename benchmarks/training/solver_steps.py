"""A training step with each method that looks at gradients, over a plain one.

    python -m benchmarks.training.solver_steps [--isa avx512 avx2] [--tasks 7 32 100]

The network of `bench_balancing`, whose norms and Gramians are checked first; each method's step
runs in turn with a plain one, and the ratio of their medians stands in a Markdown table. Each
instruction set is a process of its own, in which PyTorch's kernels and its libraries keep to it
too. Takes less than five minutes; nothing else should run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

from torch import Tensor

from benchmarks.support import in_turn, machine
from benchmarks.training.bench_balancing import Plain, Step, gradients
from fastmtl.backends.native.memory import use_isa
from fastmtl.training.recipes import BALANCERS
from tests.tolerances import assert_close

# How PyTorch, MKL and oneDNN are told of an instruction set.
ISAS = {
    "avx512": {},
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
    },
}
# Those without a solver first: norms alone, and the Gramian with a few operations on T numbers.
METHODS = [
    name
    for wanted in (("losses, norms",), ("Gramian", "losses, Gramian"))
    for name, recipe in BALANCERS.items()
    if getattr(recipe.kind, "needs", "") in wanted
]
SECONDS = 1.0  # for a method and for the plain step beside it, together


class Balanced(Step):
    """A step with a method of `fastmtl balancers`."""

    def __init__(self, tasks: int, method: str) -> None:
        super().__init__(tasks)
        kind = BALANCERS[method].kind
        assert kind is not None
        self.balancer = kind(self.net)  # type: ignore[arg-type]

    def backward(self, losses: Tensor) -> None:
        self.balancer.backward(losses)

    def check(self) -> None:
        """Run a step, and compare what the method was given with the tasks' gradients."""
        weights = self.balancer.weights.clone()
        self()
        grads = gradients(len(weights))
        if "norms" in self.balancer.needs:
            wanted = weights * grads.norm(dim=1)
            assert_close(self.net.shared.task_grad_norms(), wanted.float(), scale=10)
        else:
            assert_close(cosines(self.net.shared.task_grad_gramian()), cosines(grads @ grads.T))


def cosines(gramian: Tensor) -> Tensor:
    """What is the same of losses and of their logarithms."""
    inverse = gramian.diagonal().rsqrt()
    return inverse * gramian * inverse.unsqueeze(1)


def measure(all_tasks: Sequence[int], seconds: float = SECONDS) -> Iterator[tuple[str, int, float]]:
    """Method, T and the ratio."""
    for tasks in all_tasks:
        plain = Plain(tasks)
        for method in METHODS:
            step = Balanced(tasks, method)
            step.check()
            once = sum(in_turn(step, plain, 1))
            ours, others = in_turn(step, plain, max(5, min(100, int(seconds / once))))
            yield method, tasks, ours / others


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--isa", nargs="+", choices=ISAS, default=list(ISAS))
    parser.add_argument("--tasks", nargs="+", type=int, default=[7, 32, 100])
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.child:
        _print_all(given.isa[0], given.tasks, given.seconds)
        return
    columns = [(isa, tasks) for isa in given.isa for tasks in given.tasks]
    cells: dict[tuple[str, str, int], float] = {}
    for isa in given.isa:
        command = [sys.executable, "-m", "benchmarks.training.solver_steps", "--child"]
        command += ["--isa", isa, "--seconds", str(given.seconds)]
        command += ["--tasks", *map(str, given.tasks)]
        done = subprocess.run(
            command, env=os.environ | ISAS[isa], stdout=subprocess.PIPE, text=True, check=True
        )
        for method, tasks, ratio in map(json.loads, done.stdout.splitlines()):
            cells[method, isa, tasks] = ratio
    print(f"{machine()}\n")
    print("| balancer |" + "".join(f" {isa}, T {tasks} |" for isa, tasks in columns))
    print("| --- |" + " --- |" * len(columns))
    for method in METHODS:
        ratios = (cells[method, isa, tasks] for isa, tasks in columns)
        print(f"| `{method}` |" + "".join(f" {ratio:.2f} |" for ratio in ratios))


def _print_all(isa: str, tasks: Sequence[int], seconds: float) -> None:
    if not use_isa(isa):
        raise SystemExit(f"this processor has no {isa}")
    for line in measure(tasks, seconds):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
