"""Who trains, who validates, who tests: codes, names and seeded splits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "val", "test")
TRAIN, VAL, TEST = range(3)
HELD_OUT = 0.2

IntArray = NDArray[np.int64]


def partition(groups: IntArray, shares: Sequence[float], seed: int) -> IntArray:
    """Part of each sample, (N,): i for the i-th of `shares`, `len(shares)` for the rest.

    Whole groups are drawn in a seeded order and laid end to end; a part takes the groups whose
    centre lies in its share of the samples. With more groups than parts no part is empty. The
    order comes from the raw stream of PCG64, which numpy keeps the same on every platform and in
    every version.

    Args:
        groups: (N,) ids; each sample is its own group where all differ.
        shares: the parts' shares of the samples.
        seed: draws the order.

    Raises:
        TypeError: for a seed that is no integer.
        ValueError: for a negative seed.

    Examples:
        >>> parts = partition(np.arange(10), [0.2, 0.2], seed=0)
        >>> np.bincount(parts).tolist()
        [2, 2, 6]
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"seed: expected an integer >= 0, got {seed!r}")
    if seed < 0:
        raise ValueError(f"seed: expected an integer >= 0, got {seed}")
    ids, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(np.random.PCG64(seed).random_raw(len(ids)), kind="stable")
    centres = np.cumsum(sizes[order]) - sizes[order] / 2
    ends = np.searchsorted(centres, np.cumsum(shares) * len(groups))
    previous = 0
    for i in range(len(ends)):
        most = max(len(ids) - len(ends) + i, 0)
        previous = ends[i] = min(max(int(ends[i]), previous + 1), most)
    part_of_group = np.empty(len(ids), dtype=np.int64)
    part_of_group[order] = np.searchsorted(ends, np.arange(len(ids)), side="right")
    return part_of_group[member.reshape(-1)]


def complete_split(
    split: IntArray | None, group: IntArray | None, num_samples: int, seed: int
) -> IntArray:
    """The split of every sample, (N,) of 0 train, 1 val, 2 test, made from what a file says.

    Nothing said: 60% train, 20% val, 20% test. No validation rows: 20% of the training rows
    become them. Samples with one value of `group` stay together in whatever is drawn here.
    """
    groups = np.arange(num_samples) if group is None else group
    if split is None:
        codes = np.array([VAL, TEST, TRAIN])
        return codes[partition(groups, [HELD_OUT, HELD_OUT], seed)]
    split = split.copy()
    train = np.flatnonzero(split == TRAIN)
    if len(train) and not (split == VAL).any():
        drawn = partition(groups[train], [HELD_OUT], seed)
        split[train[drawn == 0]] = VAL
    return split
