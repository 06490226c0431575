"""The first minute on a device: what it is, and one small call of every op on every backend."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch

import fastmtl
from benchmarks.gpu.journal import Journal
from benchmarks.gpu.timing import DEVICE, backends, rehearsing
from tests.problems import CUDA_ALONE, PROBLEMS, Problem, check


def main() -> int:
    """Write the machine to the journal, then the outcome of every call."""
    journal = Journal.of_this_process()
    with rehearsing():
        journal.write("facts", **machine())
        for name, problem in PROBLEMS.items():
            # On a device both are to serve; a rehearsal has what it has.
            for backend in ("native", "triton") if DEVICE == "cuda" else backends():
                if backend == "triton" and name.split("-")[0] in CUDA_ALONE:
                    continue
                with journal.item(f"{name}, {backend}", 60):
                    compare(backend, problem)
    journal.write("end")
    return 0


def compare(backend: str, problem: Callable[[torch.dtype], Problem]) -> None:
    """An op forward and backward against float64."""
    torch.manual_seed(0)
    with fastmtl.use_backend(backend):
        check(problem(torch.float32).to(DEVICE), scale=4)


def machine() -> dict[str, object]:
    """The device and the versions of what runs on it."""
    facts: dict[str, object] = {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": sys.version.split()[0],
        "driver": _driver(),
    }
    if DEVICE == "cuda":
        properties = torch.cuda.get_device_properties(0)
        facts |= {
            "device": properties.name,
            "memory": properties.total_memory,
            "capability": f"{properties.major}.{properties.minor}",
        }
    else:
        facts["device"] = "no device, a rehearsal"
    return facts | {"backends": backends()}


def _driver() -> str:
    version = Path("/proc/driver/nvidia/version")
    return version.read_text().splitlines()[0] if version.exists() else "unknown"


if __name__ == "__main__":
    sys.exit(main())
