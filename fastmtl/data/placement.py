"""Where features are kept while they are trained on: in memory, or in their file."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastmtl._checks import did_you_mean
from fastmtl.data.budget import loaded_bytes, memory_limit
from fastmtl.data.errors import DataError
from fastmtl.data.rows import Array, Rows

MEMORY = ("auto", "load", "stream")
# Of the memory that is available: training holds a second copy, and a model beside both.
SHARE = 0.25


def check_memory(memory: str) -> None:
    """Raise DataError unless `memory` is one of `MEMORY`."""
    if memory not in MEMORY:
        near = did_you_mean(memory, MEMORY)
        raise DataError(f"memory: expected one of {', '.join(MEMORY)}, got {memory!r}{near}")


def place(
    source: str,
    memory: str,
    names: Iterable[str],
    read: Callable[[str], Array],
    rows: Callable[[str], Rows | str],
) -> dict[str, Array | Rows]:
    """The features `names` of a file, all of them read or all of them left where they are.

    Args:
        source: what the data is called in messages.
        memory: "load" reads them, "stream" leaves them, "auto" leaves what would take more than a
            quarter of the available memory.
        names: of the arrays.
        read: gives an array.
        rows: gives the rows of an array, or why there are none to be had.

    Raises:
        DataError: for "stream" where rows cannot be read.
    """
    check_memory(memory)
    names = list(names)
    if memory != "load":
        found = {name: rows(name) for name in names}
        there = {name: each for name, each in found.items() if isinstance(each, Rows)}
        if memory == "stream" and (absent := [name for name in names if name not in there]):
            expected = "an array whose rows can be read (memory)"
            raise DataError.at(source, absent[0], expected, str(found[absent[0]]))
        arrays = [(x.shape, x.stored) for x in there.values()]
        if memory == "stream" or (len(there) == len(names) and too_large(arrays)):
            return {**there}
    return {name: read(name) for name in names}


def refuse_stream(source: str, memory: str, kind: str) -> None:
    """Raise DataError if `memory` is "stream" for data of which no single rows can be read."""
    check_memory(memory)
    if memory == "stream":
        expected = "auto or load, or data in .h5, in .npz or in a directory of arrays"
        raise DataError.at(source, "memory", expected, f"stream for {kind}")


def too_large(arrays: Iterable[tuple[Sequence[int], np.dtype[Any]]]) -> bool:
    """Whether arrays of these shapes and dtypes are better left where they are ("auto")."""
    size = sum(
        loaded_bytes(math.prod(shape), dtype.itemsize, copied=dtype != np.float32)
        for shape, dtype in arrays
    )
    return size > SHARE * available_memory()


def available_memory() -> int:
    """Bytes that this process can still take: of the machine, its container, and its own limit.

    Where the environment variable FASTMTL_MEMORY_LIMIT sets a smaller size, that.
    """
    sizes = [memory_limit() or 1 << 40, *_of_machine(), *_of_group(), *_of_process()]
    return max(min(sizes), 0)


def _of_machine() -> list[int]:
    table = Path("/proc/meminfo")
    lines = table.read_text().splitlines() if table.is_file() else []
    return [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]


def _of_group() -> list[int]:
    most, now = (Path("/sys/fs/cgroup", name) for name in ("memory.max", "memory.current"))
    if not most.is_file() or not (text := most.read_text().strip()).isdecimal():
        return []
    # What is cached of files gives way.
    counts = dict(line.split() for line in Path(now.parent, "memory.stat").read_text().splitlines())
    return [int(text) - int(now.read_text()) + int(counts.get("file", 0))]


def _of_process() -> list[int]:
    """What the limit of the address space (`ulimit -v`) leaves."""
    if os.name == "nt":
        return []
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    taken = Path("/proc/self/statm")
    if limit == resource.RLIM_INFINITY or not taken.is_file():
        return []
    return [limit - int(taken.read_text().split()[0]) * resource.getpagesize()]
