"""What makes a run the same every time: orders and random numbers from the seed, fixed threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


def shuffled(indices: Tensor, seed: int, epoch: int) -> Tensor:
    """The order of the samples `indices` (n,) in an epoch, a function of seed and epoch alone.

    So an epoch that is begun again after an interruption is the same epoch.

    Examples:
        >>> shuffled(torch.arange(4), seed=0, epoch=1).sort().values
        tensor([0, 1, 2, 3])
    """
    generator = torch.Generator().manual_seed(epoch_seed(seed, epoch))
    return indices[torch.randperm(len(indices), generator=generator)]


def epoch_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """A 64-bit seed that differs for every seed, epoch and rank of a process.

    Examples:
        >>> epoch_seed(0, 1) == epoch_seed(1, 0)
        False
    """
    # The first process draws as one process alone does.
    entropy = [seed, epoch, rank] if rank else [seed, epoch]
    state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers on the CPU and `device` from `seed` inside the block, the caller's after it.

    Examples:
        >>> with seeded(0, torch.device("cpu")):
        ...     first = torch.rand(1)
        >>> with seeded(0, torch.device("cpu")):
        ...     print(torch.equal(torch.rand(1), first))
        True
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """`count` CPU threads inside the block (None: as many as before), the caller's after it.

    Examples:
        >>> with threads(1):
        ...     torch.get_num_threads()
        1
    """
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
