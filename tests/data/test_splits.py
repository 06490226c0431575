"""Seeded splits: sizes, groups, and the same result everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmtl.data.splits import TEST, TRAIN, VAL, complete_split, partition


@given(groups=st.lists(st.integers(0, 9), min_size=1, max_size=60), seed=st.integers(0, 2**64))
def test_partition_keeps_groups_whole_and_no_part_empty(groups: list[int], seed: int) -> None:
    ids = np.array(groups)
    parts = partition(ids, [0.2, 0.2], seed)
    assert parts.shape == ids.shape
    for group in np.unique(ids):
        assert len(np.unique(parts[ids == group])) == 1
    if len(np.unique(ids)) >= 3:
        assert set(parts.tolist()) == {0, 1, 2}
    else:
        assert 2 in parts


@pytest.mark.parametrize("n", [5, 10, 100, 1001, 2407])
def test_partition_sizes_without_groups(n: int) -> None:
    counts = np.bincount(partition(np.arange(n), [0.2, 0.2], 3), minlength=3)
    assert abs(counts[0] - 0.2 * n) <= 1
    assert abs(counts[1] - 0.2 * n) <= 1


def test_partition_is_this_one_on_every_platform() -> None:
    assert partition(np.arange(10), [0.2, 0.2], 0).tolist() == [2, 1, 0, 0, 2, 2, 2, 2, 1, 2]


def test_partition_depends_on_the_seed_alone() -> None:
    first, again, other = (partition(np.arange(50), [0.5], s) for s in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_unequal_groups_come_near_their_share() -> None:
    groups = np.repeat(np.arange(40), np.arange(1, 41))
    counts = np.bincount(partition(groups, [0.2, 0.2], 0)) / len(groups)
    assert np.abs(counts - [0.2, 0.2, 0.6]).max() < 0.06


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_samples_go_to_the_rest_first(n: int) -> None:
    split = complete_split(None, None, n, 0)
    assert len(split) == n
    if n:
        assert TRAIN in split


def test_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="seed: expected an integer >= 0, got -1"):
        partition(np.arange(3), [0.2], -1)


@pytest.mark.parametrize("seed", [1.5, "1", None, True])
def test_a_seed_is_an_integer(seed: Any) -> None:
    with pytest.raises(TypeError, match="seed: expected an integer"):
        partition(np.arange(3), [0.2], seed)


def test_validation_comes_out_of_training_by_group() -> None:
    split = np.array([TRAIN] * 50 + [TEST] * 10)
    group = np.repeat(np.arange(12), 5)
    full = complete_split(split, group, 60, 0)
    assert (full[50:] == TEST).all()
    assert (full == VAL).sum() == 10
    assert all(len(set(full[group == g].tolist())) == 1 for g in range(12))
    assert (split[:50] == TRAIN).all(), "the split that came was changed"


@given(st.lists(st.sampled_from([TRAIN, TEST]), min_size=5, max_size=60), st.integers(0, 9))
def test_validation_comes_out_of_training_alone(codes: list[int], seed: int) -> None:
    split = np.array(codes)
    full = complete_split(split, None, len(split), seed)
    assert ((full == TEST) == (split == TEST)).all()
    assert abs((full == VAL).sum() - 0.2 * (split == TRAIN).sum()) <= 1


def test_a_full_split_stays_as_it_is() -> None:
    split = np.array([TRAIN, VAL, TEST, TRAIN])
    assert (complete_split(split, None, 4, 0) == split).all()
